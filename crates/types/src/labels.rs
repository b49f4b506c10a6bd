//! Labels: what an operator says of a toolbox, and what a server asks of one.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The most labels one thing may have.
const MOST: usize = 20;
const LONGEST_KEY: usize = 63;
const LONGEST_VALUE: usize = 63;

/// Labels by key, checked: `zone=a,gpu=yes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = BTreeMap<String, String>, example = json!({ "zone": "a" }))]
pub struct Labels(BTreeMap<String, String>);

/// Why labels are refused; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LabelsError(String);

impl Labels {
    /// Checks labels.
    ///
    /// # Errors
    /// When there are too many, or a key or value has other characters or more than allowed.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, LabelsError> {
        if labels.len() > MOST {
            return Err(LabelsError(format!("at most {MOST} labels are possible")));
        }
        for (key, value) in &labels {
            let shown = crate::name::printable(key);
            let good = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
            if key.is_empty() || key.len() > LONGEST_KEY || !key.chars().all(good) {
                return Err(LabelsError(format!(
                    "label key `{shown}` must have 1 to {LONGEST_KEY} letters, digits, `.`, `_`, `/` or `-`"
                )));
            }
            if value.len() > LONGEST_VALUE || !value.chars().all(good) {
                return Err(LabelsError(format!(
                    "the value of label `{shown}` must have at most {LONGEST_VALUE} letters, digits, `.`, `_`, `/` or `-`"
                )));
            }
        }
        Ok(Self(labels))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every label that is wanted is here with the same value.
    #[must_use]
    pub fn include(&self, wanted: &Labels) -> bool {
        wanted.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.pad(&pairs.join(","))
    }
}

impl FromStr for Labels {
    type Err = LabelsError;
    fn from_str(text: &str) -> Result<Self, LabelsError> {
        let pair = |text: &str| match text.trim().split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(LabelsError(format!(
                "label `{}` must be `key=value`; separate several by commas",
                crate::name::printable(text)
            ))),
        };
        let pairs = text.split(',').filter(|part| !part.trim().is_empty()).map(pair);
        Self::new(pairs.collect::<Result<_, _>>()?)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(BTreeMap::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_are_written_and_match_when_all_that_is_wanted_is_there() {
        let labels: Labels = "zone=a,gpu=yes".parse().unwrap();
        assert_eq!(labels.to_string(), "gpu=yes,zone=a");
        assert!(labels.include(&"zone=a".parse().unwrap()) && labels.include(&Labels::default()));
        assert!(!labels.include(&"zone=b".parse().unwrap()) && !labels.include(&"disk=ssd".parse().unwrap()));
        assert_eq!(serde_json::from_value::<Labels>(serde_json::to_value(&labels).unwrap()).unwrap(), labels);
    }

    #[test]
    fn labels_that_cannot_be_written_on_a_command_line_are_refused() {
        for text in ["zone", "=a", "a b=c", "a=b c", "a=\u{1b}"] {
            assert!(text.parse::<Labels>().is_err(), "{text:?}");
        }
        let many: Vec<_> = (0..21).map(|n| format!("k{n}=v")).collect();
        assert!(many.join(",").parse::<Labels>().is_err());
    }
}
