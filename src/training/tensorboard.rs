//! Event files as TensorBoard reads them: records of TFRecord framing (TensorFlow, core/lib/io/record_writer.h) that
//! hold `Event` messages (core/util/event.proto). Only scalars are written, so three messages are all there is; the
//! crates that write event files are unkept.

use prost::Message;

/// One moment of a run: values by tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalars {
    /// Unix seconds.
    pub wall_time: f64,
    pub step: u64,
    pub values: Vec<(String, f64)>,
}

/// A whole event file: the version that readers look for first, then the moments.
pub fn event_file(moments: &[Scalars]) -> Vec<u8> {
    let wall_time = moments.first().map_or(0.0, |m| m.wall_time);
    let version = Event { wall_time, step: 0, file_version: Some("brain.Event:2".into()), summary: None };
    let events = moments.iter().map(|moment| Event {
        wall_time: moment.wall_time,
        step: moment.step as i64,
        file_version: None,
        summary: Some(Summary { value: moment.values.iter().map(|(tag, v)| Value::of(tag, *v)).collect() }),
    });
    std::iter::once(version).chain(events).flat_map(|event| record(&event.encode_to_vec())).collect()
}

/// Length, its checksum, the bytes, their checksum; all little endian.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length, &masked(&length).to_le_bytes()[..], bytes, &masked(bytes).to_le_bytes()].concat()
}

/// CRC-32C, turned and shifted so that a checksum of bytes that hold checksums is no weak one (core/lib/hash/crc32c.h).
fn masked(bytes: &[u8]) -> u32 {
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
    /// One of several kinds of values, so that a zero has to be written.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

impl Value {
    fn of(tag: &str, value: f64) -> Self {
        Self { tag: tag.into(), simple_value: Some(value as f32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard_and_of_tensorflows_own_files() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // Event files of TensorFlow start with a version record of 24 bytes.
        let file = event_file(&[Scalars { wall_time: 1.7e9, step: 3, values: vec![("loss".into(), 0.0)] }]);
        assert_eq!(file[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(file[24 + 8 + 4 - 13..24 + 8 + 4], *b"brain.Event:2");
    }

    #[test]
    fn a_zero_is_written() {
        let value = Value::of("loss", 0.0).encode_to_vec();
        assert_eq!(value, [10, 4, b'l', b'o', b's', b's', 21, 0, 0, 0, 0]);
    }
}
