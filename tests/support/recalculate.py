"""Edits cells of a workbook, lets LibreOffice compute every formula, and prints the rows of its first sheet as JSON.

Usage: recalculate.py WORKBOOK FOLDER [CELL=NUMBER ...]. The folder takes the edited copy and LibreOffice's own settings.
"""

import csv
import json
import pathlib
import re
import subprocess
import sys
import zipfile

workbook, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
edits = dict(edit.split("=") for edit in sys.argv[3:])
edited = folder / "edited.xlsx"

with zipfile.ZipFile(workbook) as source, zipfile.ZipFile(edited, "w", zipfile.ZIP_DEFLATED) as target:
    for name in source.namelist():
        content = source.read(name)
        if name == "xl/worksheets/sheet1.xml":
            text = content.decode()
            for cell, number in edits.items():
                text, count = re.subn(rf'(<c r="{cell}"[^>]*>)<v>[^<]*</v>', rf"\g<1><v>{number}</v>", text)
                assert count == 1, f"{cell}: expected one number, found {count}"
            # The published results go, so that only LibreOffice's own can be read.
            text = re.sub(r"(</f>)<v>[^<]*</v>", r"\1", text)
            content = text.encode()
        target.writestr(name, content)

# 0: always compute when a file is opened.
profile = folder / "profile"
(profile / "user").mkdir(parents=True, exist_ok=True)
(profile / "user" / "registrymodifications.xcu").write_text(
    """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry" xmlns:xs="http://www.w3.org/2001/XMLSchema">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load"><prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop></item>
</oor:items>
"""
)
# Cells as they are, not as they are shown; all sheets.
filter_options = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false,false,false,false,-1"
subprocess.run(
    ["soffice", f"-env:UserInstallation={profile.resolve().as_uri()}", "--headless", "--convert-to", filter_options,
     "--outdir", str(folder), str(edited)],
    check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
)
sheets = {}
for path in sorted(folder.glob("edited-*.csv")):
    with open(path, newline="", encoding="utf-8") as file:
        sheets[path.stem.removeprefix("edited-")] = list(csv.reader(file))
    path.unlink()
with zipfile.ZipFile(workbook) as source:
    sheet = source.read("xl/worksheets/sheet1.xml").decode()
marks = {"frozen header": "<pane ", "filters": "<autoFilter ", "widths": "<col ", "bounds of edits": "<dataValidation "}
print(json.dumps({"sheets": sheets, "missing": [name for name, mark in marks.items() if mark not in sheet]}))
