//! Renders the page: one file that makes no request, with the rows compressed inside it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::{Compression, write::GzEncoder};
use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde_json::Value;
use std::io::BufWriter;

use super::data::{Report, is_order};
use super::labels::Labels;
use crate::config::Language;
use crate::failure::{Failure, Result};

const TEMPLATE: &str = include_str!("assets/page.html");

/// Order lines that the page shows without its script.
const LINES_WITHOUT_SCRIPT: usize = 50;

/// Renders the page of a report.
pub(super) fn render(report: &Report, language: Language, labels: &Labels) -> Result<String> {
    let mut data = report.facts()?;
    for (name, columns) in &report.views {
        data.insert((*name).into(), columns.rounded());
    }
    let ordered = report.view("order_lines")?.rows().filter(is_order);
    let urgent: Vec<Value> = ordered.take(LINES_WITHOUT_SCRIPT).map(Value::Object).collect();
    let mut environment = Environment::new();
    environment.add_template("page.html", TEMPLATE).map_err(Failure::bug)?;
    let template = environment.get_template("page.html").map_err(Failure::bug)?;
    let rendered = template.render(context! {
        language => Labels::tag(language),
        label => labels.all(),
        labels_json => in_script(&serde_json::to_string(labels.all()).map_err(Failure::bug)?),
        run_date => report.night.run_date().to_string(),
        urgent => minijinja::Value::from(Serde(urgent)),
        data => BASE64_STANDARD.encode(compressed(&Value::Object(data))?),
        page_css => include_str!("assets/page.css"),
        page_js => include_str!("assets/page.js"),
        uplot_css => include_str!("assets/uplot.css"),
        uplot_js => include_str!("assets/uplot.js"),
        uplot_license => include_str!("assets/uplot-license.txt"),
    });
    rendered.map_err(Failure::bug)
}

/// Escapes JSON so that no text in it ends the script element around it.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn compressed(value: &Value) -> Result<Vec<u8>> {
    let mut encoder = BufWriter::new(GzEncoder::new(Vec::new(), Compression::default()));
    serde_json::to_writer(&mut encoder, value).map_err(Failure::bug)?;
    let encoder = encoder.into_inner().map_err(Failure::bug)?;
    encoder.finish().map_err(Failure::bug)
}
