//! `mask_text(text)`: a text that a customer wrote, without e-mail addresses, phone numbers, card numbers and IBANs.
//!
//! Rules, not a model: what they find is what a reader of the rules expects. Card numbers must pass Luhn's check (ISO/IEC 7812-1), IBANs
//! that of ISO 13616 (mod 97), so that article numbers stay.

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use regex::{Captures, Regex};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// Digits of the shortest number that is looked at.
const DIGITS_MIN: usize = 7;

/// A pattern, the word that takes the place of what it finds, and a check of what it finds.
struct Rule {
    pattern: Regex,
    word: &'static str,
    is_meant: IsMeant,
}

type IsMeant = fn(&str) -> bool;

/// The rules in their order: a card number would be a phone number too.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule =
        |pattern: &str, word, is_meant: IsMeant| Some(Rule { pattern: Regex::new(pattern).ok()?, word, is_meant });
    let rules = [
        rule(r"[\p{L}0-9._%+'-]+@[\p{L}0-9-]+(?:\.[\p{L}0-9-]+)*\.\p{L}{2,}", "[email]", |_| true),
        rule(r"\b[A-Za-z]{2}[0-9]{2}(?:[ ]?[A-Za-z0-9]{2,4}){3,8}\b", "[iban]", is_iban),
        rule(r"\b[0-9](?:[ -]?[0-9]){12,18}\b", "[card]", is_card),
        rule(
            r"(?:\+|\b00)[1-9][0-9 ()./-]{6,20}[0-9]\b|\(?\b0[1-9][0-9 ()/.-]{5,16}[0-9]\b|\(?\b[2-9][0-9]{2}\)?[ .-][2-9][0-9]{2}[ .-][0-9]{4}\b",
            "[phone]",
            is_phone,
        ),
    ];
    // Every pattern is one; a test counts them.
    rules.into_iter().flatten().collect()
});

/// Returns the text without what identifies a person.
pub(crate) fn mask(text: &str) -> Cow<'_, str> {
    if !text.contains('@') && text.bytes().filter(u8::is_ascii_digit).count() < DIGITS_MIN {
        return Cow::Borrowed(text);
    }
    let mut masked = Cow::Borrowed(text);
    for rule in RULES.iter() {
        if let Cow::Owned(changed) = rule.pattern.replace_all(&masked, |found: &Captures<'_>| {
            let found = &found[0];
            if (rule.is_meant)(found) { rule.word.to_string() } else { found.to_string() }
        }) {
            masked = Cow::Owned(changed);
        }
    }
    masked
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn is_card(text: &str) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let digits = digits(text);
    let sum: u32 = digits.iter().rev().enumerate().map(|(at, d)| if at % 2 == 1 { doubled(*d) } else { *d }).sum();
    // Issuers' numbers begin with 2 to 6, and article numbers of 13 digits mostly have Luhn's remainder by chance only.
    sum.is_multiple_of(10) && digits.first().is_some_and(|first| (2..=6).contains(first)) && digits.len() != 13
}

fn is_iban(text: &str) -> bool {
    let text: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_uppercase();
    if !(15..=34).contains(&text.len()) {
        return false;
    }
    let value = |c: char| c.to_digit(36).unwrap_or_default();
    let moved = text[4..].chars().chain(text[..4].chars());
    let rest = moved.fold(0, |rest: u32, c| (rest * if value(c) > 9 { 100 } else { 10 } + value(c)) % 97);
    rest == 1
}

fn is_phone(text: &str) -> bool {
    let count = digits(text).len();
    // Without a separator 12 and 13 digits are rather an article number (UPC, EAN).
    if count == text.len() && !text.starts_with("00") && !(9..=11).contains(&count) {
        return false;
    }
    // A day such as 01.03.2026 has eight digits and two separators.
    let is_date =
        text.len() == 10 && text.bytes().enumerate().all(|(at, b)| b.is_ascii_digit() != (at == 2 || at == 5));
    (8..=15).contains(&count) && !is_date
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct MaskText {
    signature: Signature,
}

impl Default for MaskText {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MaskText {
    fn name(&self) -> &str {
        "mask_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let masked: StringArray = texts.as_string::<i32>().iter().map(|text| text.map(mask)).collect();
        Ok(ColumnarValue::Array(Arc::new(masked) as ArrayRef))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of shoppers with what identifies them in braces.
    const FIXTURE: &str = include_str!("../../tests/fixtures/text/personal.txt");

    #[test]
    fn what_identifies_a_person_is_masked_and_little_else() {
        let (mut found, mut wanted, mut wrong) = (0.0, 0.0, Vec::new());
        let mut masks = 0.0;
        for line in FIXTURE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let plain = line.replace(['{', '}'], "");
            let masked = mask(&plain);
            let parts: Vec<&str> = line.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            let hidden = parts.iter().filter(|part| !masked.contains(**part)).count();
            let made: usize = RULES.iter().map(|rule| masked.matches(rule.word).count()).sum();
            wanted += parts.len() as f64;
            found += hidden as f64;
            masks += made as f64;
            if hidden < parts.len() || made > parts.len() {
                wrong.push(format!("{line} -> {masked}"));
            }
        }
        let (recall, precision) = (found / wanted, found / masks);
        assert!(
            recall >= 0.95 && precision >= 0.95,
            "recall {recall:.3}, precision {precision:.3}\n{}",
            wrong.join("\n")
        );
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in
            ["", "iphone 15 pro 256 gb", "größe 38/40", "@home", "4006381333931", "01.03.2026", "ean 0123456789012"]
        {
            assert_eq!(mask(text), text);
        }
        assert_eq!(mask("ask max@example.org, +49 30 1234567"), "ask [email], [phone]");
        assert_eq!(mask("4111 1111 1111 1111"), "[card]");
        assert_eq!(mask("4111 1111 1111 1112"), "4111 1111 1111 1112");
        assert_eq!(mask("DE89 3704 0044 0532 0130 00"), "[iban]");
        assert_eq!(mask("GB83WEST12345698765432"), "GB83WEST12345698765432");
        assert_eq!(RULES.len(), 4);
    }
}
