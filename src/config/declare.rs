//! The two macros by which a setting is declared once, and what they record of it.
//!
//! [`settings`] makes the struct of a section: a setting is a doc comment, a key, a type, a default and, for numbers, bounds.
//! [`choices`] makes the enum of a setting that takes one of several names. jobs/nightly.toml and
//! docs/reference/configuration.md are rendered from what they record ([`super::render`]).
//!
//! By hand, as a derive of `garde` or `validator` checks bounds but doesn't tell them: the documents would state them a second time.

use crate::failure::{Failure, Result};

/// A declared section, for the rendered documents.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) settings: Vec<Setting>,
}

/// A declared setting, for the rendered documents.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) meaning: &'static str,
    /// Smallest and largest value that is accepted.
    pub(crate) bounds: Option<(f64, f64)>,
    /// Names that are accepted, each with its meaning; empty for settings of other types.
    pub(crate) choices: &'static [(&'static str, &'static str)],
}

/// A type that a setting may have.
pub(crate) trait SettingValue {
    const CHOICES: &'static [(&'static str, &'static str)] = &[];

    /// The value as bounds compare it.
    fn number(&self) -> f64 {
        f64::NAN
    }
}

impl SettingValue for bool {}
impl SettingValue for String {}
impl SettingValue for Vec<String> {}

impl SettingValue for u32 {
    fn number(&self) -> f64 {
        f64::from(*self)
    }
}

impl SettingValue for u64 {
    fn number(&self) -> f64 {
        *self as f64
    }
}

impl SettingValue for f64 {
    fn number(&self) -> f64 {
        *self
    }
}

/// Refuses a value outside its bounds.
pub(crate) fn check_bounds(section: &str, key: &str, value: &impl SettingValue, low: f64, high: f64) -> Result<()> {
    let value = value.number();
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Failure::usage(format!("{section}.{key}: expected {low} to {high}, got {value}")))
}

/// Declares a section: `key: type = default, low..=high;` below the comment that describes the setting.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $meaning:literal])+
                $(#[serde($attribute:ident)])?
                $key:ident: $type:ty = $default:expr $(, $low:literal..=$high:literal)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $meaning])+
                $(#[serde($attribute)])?
                pub $key: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default),+ }
            }
        }

        impl $name {
            pub(super) fn declared(name: &'static str) -> $crate::config::declare::Section {
                use $crate::config::declare::{Section, Setting, SettingValue};
                let bounds = |bounds: &[(f64, f64)]| bounds.first().copied();
                let settings = vec![$(
                    Setting {
                        key: stringify!($key),
                        meaning: concat!($($meaning, "\n"),+),
                        bounds: bounds(&[$(($low as f64, $high as f64))?]),
                        choices: <$type as SettingValue>::CHOICES,
                    }
                ),+];
                Section { name, about: concat!($($about, "\n"),+), settings }
            }

            pub(super) fn check_bounds(&self, _section: &str) -> $crate::failure::Result<()> {
                $($(
                    let (low, high) = ($low as f64, $high as f64);
                    $crate::config::declare::check_bounds(_section, stringify!($key), &self.$key, low, high)?;
                )?)+
                Ok(())
            }
        }
    };
}
pub(super) use settings;

/// Declares the names that a setting accepts: `Variant = "name",` below the comment that describes the choice.
macro_rules! choices {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $meaning:literal])+
                $variant:ident = $text:literal,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(
                $(#[doc = $meaning])+
                #[serde(rename = $text)]
                $variant,
            )+
        }

        impl $name {
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];
        }

        impl $crate::config::declare::SettingValue for $name {
            const CHOICES: &'static [(&'static str, &'static str)] = &[$(($text, concat!($($meaning, "\n"),+))),+];
        }
    };
}
pub(super) use choices;
