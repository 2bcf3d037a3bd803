//! Readers for values that clients write in several ways and that mean the same: whole numbers with
//! a fraction of zero, the words for "no limit", keys that are numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Most that an output limit can say; stands for "no limit" where a field has a default.
pub const UNLIMITED: u32 = u32::MAX;

/// A whole number, as `7`, `7.0` or `7e0`; `None` for null.
struct Whole;

impl Visitor<'_> for Whole {
    type Value = Option<i128>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_unit<E>(self) -> Result<Option<i128>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<i128>, E> {
        Ok(Some(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<i128>, E> {
        Ok(Some(number.into()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "far within i128")]
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<i128>, E> {
        // 2^100 is more than any field takes and less than i128 holds.
        if number.fract() == 0.0 && number.abs() < 2_f64.powi(100) {
            return Ok(Some(number as i128));
        }
        Err(E::invalid_value(de::Unexpected::Float(number), &self))
    }
}

/// A whole number of the field's type.
pub fn whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    let Some(number) = deserializer.deserialize_any(Whole)? else { return Ok(None) };
    let out_of_range = |_| de::Error::custom(format_args!("{number} is out of range"));
    T::try_from(number).map(Some).map_err(out_of_range)
}

/// A list of tokens, each a whole number.
pub fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    struct Token(#[serde(deserialize_with = "whole")] Option<u32>);
    let tokens = Vec::<Token>::deserialize(deserializer)?;
    let missing = || de::Error::custom("null is no token");
    tokens.into_iter().map(|Token(token)| token.ok_or_else(missing)).collect()
}

/// Any whole number: seeds differ in their bits, whatever their sign or size.
pub fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = deserializer.deserialize_any(Whole)?;
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are the seed")]
    Ok(number.map(|number| number as i64))
}

/// An output limit in tokens; −1, llama.cpp's word for "no limit", counts as none.
pub fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(limit_or_unlimited(deserializer)?.filter(|limit| *limit != UNLIMITED))
}

/// As [`limit`], with [`UNLIMITED`] for −1.
pub fn limit_or_unlimited<'de, D>(deserializer: D) -> Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    match deserializer.deserialize_any(Whole)? {
        None => Ok(None),
        Some(-1) => Ok(Some(UNLIMITED)),
        Some(number) if number < 0 => {
            Err(de::Error::custom(format_args!("{number} must be at least 1, or -1 for no limit")))
        }
        Some(number) => Ok(Some(u32::try_from(number).unwrap_or(UNLIMITED))),
    }
}

/// Token ids, as keys, with their logit offsets. An empty list is PHP's empty object.
pub fn biases<'de, D>(deserializer: D) -> Result<Option<BTreeMap<u32, f32>>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Biases;
    impl<'de> Visitor<'de> for Biases {
        type Value = Option<BTreeMap<u32, f32>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object from token ids to numbers")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            match list.next_element::<IgnoredAny>()? {
                None => Ok(None),
                Some(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
            }
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut biases = BTreeMap::new();
            while let Some((key, bias)) = map.next_entry::<String, f32>()? {
                let token = key.trim().parse().map_err(|_| {
                    de::Error::custom("its keys must be token ids of the model's vocabulary")
                })?;
                biases.insert(token, bias);
            }
            Ok(Some(biases))
        }
    }
    deserializer.deserialize_any(Biases)
}

/// Whether a field of which nothing else is read asks for something: not null, false, 0 or empty.
/// An empty object asks: some options are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Given(pub bool);

impl Given {
    pub fn is_absent(&self) -> bool {
        !self.0
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GivenVisitor;
        impl<'de> Visitor<'de> for GivenVisitor {
            type Value = Given;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Given, E> {
                Ok(Given(false))
            }
            fn visit_bool<E>(self, yes: bool) -> Result<Given, E> {
                Ok(Given(yes))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Given, E> {
                Ok(Given(number != 0))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Given, E> {
                Ok(Given(number != 0))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Given, E> {
                Ok(Given(number != 0.0))
            }
            fn visit_str<E>(self, text: &str) -> Result<Given, E> {
                Ok(Given(!text.is_empty()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Given, A::Error> {
                let mut given = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    given = true;
                }
                Ok(Given(given))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Given(true))
            }
        }
        deserializer.deserialize_any(GivenVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Numbers {
        #[serde(deserialize_with = "whole")]
        n: Option<u32>,
        #[serde(deserialize_with = "whole")]
        top_k: Option<i32>,
        #[serde(deserialize_with = "seed")]
        seed: Option<i64>,
        #[serde(deserialize_with = "limit")]
        limit: Option<u32>,
        #[serde(deserialize_with = "limit_or_unlimited")]
        raw_limit: Option<u32>,
        #[serde(deserialize_with = "biases")]
        bias: Option<BTreeMap<u32, f32>>,
        given: Given,
    }

    fn read(json: &str) -> Result<Numbers, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, number) in [("7", 7), ("7.0", 7), ("1e3", 1000), ("70e-1", 7), ("0.0", 0)] {
            assert_eq!(read(&format!("{{\"n\":{text}}}")).unwrap().n, Some(number), "{text}");
            let signed = read(&format!("{{\"top_k\":-{text}}}")).unwrap().top_k;
            assert_eq!(signed, Some(-i32::try_from(number).unwrap()), "{text}");
        }
        assert_eq!(read(r#"{"n":null}"#).unwrap(), Numbers::default());
        for wrong in ["7.5", "-1", "4294967296", "1e300", "\"7\"", "true", "[]", "{}"] {
            assert!(read(&format!("{{\"n\":{wrong}}}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_integer_is_a_seed() {
        for (text, seed) in [
            ("-1", -1),
            ("42.0", 42),
            ("9223372036854775808", i64::MIN),
            ("18446744073709551615", -1),
            ("18446744073709551616", 0),
        ] {
            assert_eq!(read(&format!("{{\"seed\":{text}}}")).unwrap().seed, Some(seed), "{text}");
        }
        assert!(read(r#"{"seed":0.5}"#).is_err());
    }

    #[test]
    fn minus_one_is_no_limit() {
        let both = |text: &str| {
            let numbers = read(&format!("{{\"limit\":{text},\"raw_limit\":{text}}}"));
            numbers.map(|numbers| (numbers.limit, numbers.raw_limit))
        };
        assert_eq!(both("-1").unwrap(), (None, Some(UNLIMITED)));
        assert_eq!(both("100.0").unwrap(), (Some(100), Some(100)));
        assert_eq!(both("0").unwrap(), (Some(0), Some(0)));
        assert_eq!(both("null").unwrap(), (None, None));
        assert!(both("-2").unwrap_err().contains("-1 for no limit"));
    }

    #[test]
    fn biases_have_keys_that_are_numbers() {
        let bias = |text: &str| read(&format!("{{\"bias\":{text}}}")).map(|numbers| numbers.bias);
        assert_eq!(bias(r#"{"5":-1,"6":2.5}"#).unwrap(), Some([(5, -1.0), (6, 2.5)].into()));
        assert_eq!(bias("[]").unwrap(), None);
        assert!(bias(r#"{"hello":1}"#).unwrap_err().contains("token ids"));
        assert!(bias("[1]").is_err());
    }

    #[test]
    fn a_field_asks_unless_it_is_empty() {
        let given = |text: &str| read(&format!("{{\"given\":{text}}}")).unwrap().given.0;
        for text in ["null", "false", "0", "0.0", "\"\"", "[]"] {
            assert!(!given(text), "{text}");
        }
        let deep = "[".repeat(500) + &"]".repeat(500);
        for text in ["true", "1", "-0.5", "\"x\"", "[null]", "{}", r#"{"a":[1]}"#, &deep] {
            assert!(given(text), "{text}");
        }
    }
}
