//! TensorBoard event files: records in TFRecord framing (TensorFlow, core/lib/io/record_writer.h) that hold `Event`
//! messages (core/util/event.proto). Three messages are enough for scalars; the crates that write event files are
//! unmaintained.

use prost::Message;

/// Values by tag at one step of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalars {
    /// Unix seconds.
    pub(crate) wall_time: f64,
    pub(crate) step: u64,
    pub(crate) values: Vec<(String, f64)>,
}

/// Encodes a whole event file: the version that readers look for first, then the scalars.
pub(crate) fn event_file(scalars: &[Scalars]) -> Vec<u8> {
    let wall_time = scalars.first().map_or(0.0, |s| s.wall_time);
    let version = Event { wall_time, step: 0, file_version: Some("brain.Event:2".into()), summary: None };
    let events = scalars.iter().map(|at_step| Event {
        wall_time: at_step.wall_time,
        step: at_step.step as i64,
        file_version: None,
        summary: Some(Summary { value: at_step.values.iter().map(|(tag, v)| Value::new(tag, *v)).collect() }),
    });
    std::iter::once(version).chain(events).flat_map(|event| record(&event.encode_to_vec())).collect()
}

/// Frames a record: length, its checksum, the bytes, their checksum; all little endian.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length, &masked_crc(&length).to_le_bytes()[..], bytes, &masked_crc(bytes).to_le_bytes()].concat()
}

/// CRC-32C, rotated and offset because a plain CRC of bytes that contain CRCs is weak (core/lib/hash/crc32c.h).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// A member of a oneof, so a zero must be written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

impl Value {
    fn new(tag: &str, value: f64) -> Self {
        Self { tag: tag.into(), simple_value: Some(value as f32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_the_standard_and_tensorflow() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // Event files of TensorFlow start with a version record of 24 bytes.
        let file = event_file(&[Scalars { wall_time: 1.7e9, step: 3, values: vec![("loss".into(), 0.0)] }]);
        assert_eq!(file[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(file[24 + 8 + 4 - 13..24 + 8 + 4], *b"brain.Event:2");
    }

    #[test]
    fn a_zero_is_written() {
        let value = Value::new("loss", 0.0).encode_to_vec();
        assert_eq!(value, [10, 4, b'l', b'o', b's', b's', 21, 0, 0, 0, 0]);
    }
}
