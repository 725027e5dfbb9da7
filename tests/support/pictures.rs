//! A shop of drawn pictures: a CSV table that names files and a Parquet table that holds their bytes.

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use std::fmt::Write;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use super::job::Job;

pub const ROWS: u32 = 160;
pub const SHAPES: [&str; 3] = ["cross", "disc", "frame"];
/// Settings of small pictures and few epochs: random weights learn these shapes in a second.
pub const SETTINGS: [&str; 3] = ["image.side_pixels=16", "image.epochs_max=6", "train.patience_epochs=6"];

pub fn draw(what: &str, row: u32) -> u32 {
    u32::from(blake3::hash(format!("{what} {row}").as_bytes()).as_bytes()[0])
}

/// Returns the number of the shape that a picture shows, and true if it is red.
pub fn shown(row: u32) -> (usize, bool) {
    (draw("shape", row) as usize % 3, draw("red", row) < 128)
}

/// Draws a shape somewhere on a dark ground, with noise; every third picture is a JPEG.
pub fn picture(row: u32) -> Vec<u8> {
    let (shape, red) = shown(row);
    let (x0, y0) = (9 + draw("x", row) as i32 % 6, 9 + draw("y", row) as i32 % 6);
    let drawn = RgbImage::from_fn(24, 24, |x, y| {
        let (dx, dy) = ((x as i32 - x0).abs(), (y as i32 - y0).abs());
        let on = match shape {
            0 => dx.min(dy) < 2 && dx.max(dy) < 8,
            1 => dx * dx + dy * dy < 36,
            _ => (5..7).contains(&dx.max(dy)),
        };
        let noise = draw(&format!("{x} {y}"), row) as u8 / 8;
        match (on, red) {
            (false, _) => Rgb([noise, noise, noise + 20]),
            (true, true) => Rgb([200 + noise, 60, 60]),
            (true, false) => Rgb([60, 60, 200 + noise]),
        }
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    let format = if row.is_multiple_of(3) { ImageFormat::Jpeg } else { ImageFormat::Png };
    drawn.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Returns a file name as shops have them: some need escapes in a URL, and some begin with `./`.
pub fn file(row: u32) -> String {
    match row % 40 {
        9 => format!("images/{row} 50%20 #.bin"),
        10 => format!("images/é?{row}.bin"),
        11 => format!("./images//{row}.bin"),
        _ => format!("images/{row}.bin"),
    }
}

/// A shop with pictures: `items.csv` names files below `images/`, `items.parquet` holds their bytes. In both, row 5 has no
/// picture, row 6 a truncated one, and row 7 no file; row 8 has no label.
pub struct PictureShop {
    job: Job,
}

impl Deref for PictureShop {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl PictureShop {
    pub fn new() -> Self {
        let shop = Self { job: Job::new(&SETTINGS) };
        std::fs::create_dir(shop.path("images")).unwrap();
        let mut table = String::from("picture,shape,red,disc,same,number\n");
        let (mut bytes, mut reds, mut discs) = (Vec::new(), Vec::new(), Vec::new());
        for row in 1..=ROWS {
            let (whole, file) = (picture(row), file(row));
            let kept = if row == 6 { &whole[..whole.len() / 2] } else { &whole[..] };
            if row != 7 {
                std::fs::write(shop.path(&file), kept).unwrap();
            }
            let (shape, red) = shown(row);
            let name = if row == 5 { String::new() } else { file };
            let label = if row == 8 { "" } else { SHAPES[shape] };
            writeln!(table, "{name},{label},{},{},7,{row}", u8::from(red), u8::from(shape == 1)).unwrap();
            bytes.push(match row {
                5 => None,
                7 => Some(Vec::new()),
                _ => Some(kept.to_vec()),
            });
            reds.push((row != 8).then_some(i64::from(red)));
            discs.push(i64::from(shape == 1));
        }
        std::fs::write(shop.path("items.csv"), table).unwrap();
        let columns: [(&str, ArrayRef); 4] = [
            ("row", Arc::new(Int64Array::from_iter_values(1..=i64::from(ROWS)))),
            ("image", Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>())),
            ("red", Arc::new(Int64Array::from(reds))),
            ("disc", Arc::new(Int64Array::from(discs))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        let file = std::fs::File::create(shop.path("items.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        shop
    }

    /// Trains; returns the written model and the log.
    pub fn train(&self, settings: &[&str], task: &[&str]) -> (Model, String) {
        let (printed, log) = self.done(settings, &[&["train", "--task", "image"], task].concat());
        let version = printed.split_whitespace().nth(2).unwrap().to_string();
        assert!(printed.contains(&format!("image model {version}")), "{printed}");
        let folder = PathBuf::from(self.path("out/models")).join(&version);
        let card = serde_json::from_slice(&std::fs::read(folder.join("image.json")).unwrap()).unwrap();
        (Model { version, folder, card }, log)
    }

    /// Returns the rows of a query over the Parquet table `items`, as CSV without a header, and the log.
    pub fn sql(&self, settings: &[&str], query: &str) -> (Vec<String>, String) {
        let items = self.path("items.parquet");
        let query = format!("CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '{items}'; {query}");
        let (printed, log) = self.done(settings, &["sql", "--format", "csv", "-c", &query]);
        (printed.lines().skip(1).map(String::from).collect(), log)
    }
}

pub struct Model {
    pub version: String,
    pub folder: PathBuf,
    pub card: Value,
}

impl Model {
    pub fn figure(&self, name: &str) -> f64 {
        self.card["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {}", self.card))
    }

    pub fn weights(&self) -> Vec<(String, tch::Tensor)> {
        let mut named = tch::Tensor::read_safetensors(self.folder.join("image/model.safetensors")).unwrap();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    pub fn encoder(&self) -> String {
        self.folder.join("image").display().to_string()
    }
}
