//! Pseudonyms of users: the same id always has the same one, and who lacks the key learns nothing of the id.

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

use crate::failure::{Failure, Result};

/// Bytes of a key file; a shorter one could be guessed.
const KEY_BYTES_MIN: usize = 32;

/// Hexadecimal digits of a pseudonym: 128 bits.
const DIGITS: usize = 32;

/// The key of pseudonyms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PseudonymKey([u8; 32]);

/// Without the key, which must not get into logs.
impl std::fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PseudonymKey")
    }
}

impl PseudonymKey {
    /// Reads the file of `serve.pseudonym_key`.
    pub(super) fn read(path: &str) -> Result<Self> {
        let setting = |text: String| Failure::usage(format!("serve.pseudonym_key = {path}: {text}"));
        let bytes = std::fs::read(path).map_err(|e| setting(e.to_string()))?;
        if bytes.len() < KEY_BYTES_MIN {
            return Err(setting(format!("expected at least {KEY_BYTES_MIN} bytes, got {}", bytes.len()))
                .hint("`head -c 32 /dev/urandom > FILE` makes a key; keep it: another key gives other pseudonyms"));
        }
        Ok(Self(blake3::derive_key("intentcast pseudonyms of users", &bytes)))
    }

    /// Returns the pseudonym of an id: a keyed hash (BLAKE3, section 2.3 of its paper), which takes the place of HMAC.
    pub(super) fn of(&self, id: &str) -> String {
        let mut digits = blake3::keyed_hash(&self.0, id.as_bytes()).to_hex().to_string();
        digits.truncate(DIGITS);
        digits
    }

    /// Returns the pseudonym of an expression.
    pub(super) fn of_column(&self, id: Expr) -> Expr {
        ScalarUDF::from(Pseudonym { key: self.clone(), signature: Signature::any(1, Volatility::Immutable) })
            .call(vec![id])
    }
}

/// The function of [`PseudonymKey::of_column`]. No session has it by name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pseudonym {
    key: PseudonymKey,
    signature: Signature,
}

impl ScalarUDFImpl for Pseudonym {
    fn name(&self) -> &str {
        "pseudonym"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> EngineResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let ids = ColumnarValue::values_to_arrays(&arguments.args)?;
        let ids = cast(&ids[0], &DataType::Utf8)?;
        let pseudonyms = ids.as_string::<i32>().iter().map(|id| id.map(|id| self.key.of(id)));
        let pseudonyms: ArrayRef = Arc::new(pseudonyms.collect::<StringArray>());
        Ok(ColumnarValue::Array(pseudonyms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_depend_on_the_key_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            PseudonymKey::read(path.to_str().unwrap())
        };
        let (one, two) = (key("one", &[1; 32]).unwrap(), key("two", &[2; 32]).unwrap());
        assert_eq!(one.of("u1"), one.of("u1"));
        assert!(one.of("u1") != one.of("u2") && one.of("u1") != two.of("u1"));
        assert_eq!(one.of("u1").len(), DIGITS);
        assert_eq!(format!("{one:?}"), "PseudonymKey");
        let refused = key("short", b"secret").unwrap_err().to_string();
        assert!(refused.contains("at least 32 bytes, got 6"), "{refused}");
        assert!(PseudonymKey::read("/no/such/file").is_err());
    }
}
