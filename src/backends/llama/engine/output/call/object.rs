//! Calls of one JSON object with a name and arguments: Hermes, Llama 3, Mistral up to v7.
//!
//! Pure. Fields may have any order; arguments are streamed only if they follow the name.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::expected::Read;
use super::scan::JsonScan;

#[derive(Debug)]
pub(super) struct ObjectCall {
    /// Offset in the read text of the possible object, including blanks.
    body: usize,
    /// Offset of the object.
    object: usize,
    stage: Stage,
    scan: JsonScan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    BeforeArray,
    BeforeObject,
    Object,
    Arguments,
    /// Between the arguments and the object's end.
    AfterArguments,
    /// In fields after the arguments.
    MoreFields,
}

impl ObjectCall {
    pub(super) fn new(in_array: bool) -> Self {
        let stage = if in_array { Stage::BeforeArray } else { Stage::BeforeObject };
        Self { body: 0, object: 0, stage, scan: JsonScan::default() }
    }

    /// The object's text so far, if it follows a tag or begins with the name of a known tool.
    pub(super) fn surely_begun<'r>(
        &self,
        read: &'r str,
        is_tagged: bool,
        known: &[String],
    ) -> Option<&'r str> {
        let begun = match self.stage {
            Stage::BeforeObject => is_tagged,
            Stage::Object => {
                let object = &read[self.object..];
                let named = |name: &String| object.starts_with(&format!("{{\"name\": \"{name}\""));
                is_tagged || known.iter().any(named)
            }
            _ => false,
        };
        begun.then(|| &read[self.body..])
    }

    pub(super) fn feed(&mut self, char: char, read: &str, known: &[String]) -> Read {
        match self.stage {
            Stage::BeforeArray | Stage::BeforeObject | Stage::AfterArguments
                if char.is_whitespace() =>
            {
                Read::More
            }
            Stage::BeforeArray if char == '[' => {
                self.body = read.len();
                self.stage = Stage::BeforeObject;
                Read::More
            }
            Stage::BeforeObject if char == '{' => {
                self.object = read.len() - 1;
                self.stage = Stage::Object;
                self.scan.feed(char);
                Read::More
            }
            Stage::BeforeArray | Stage::BeforeObject => Read::NoCall,
            Stage::Object => self.in_object(char, &read[self.object..], known),
            Stage::Arguments => {
                self.scan.feed(char);
                if self.scan.depth == 1 {
                    self.stage = Stage::AfterArguments;
                }
                Read::Arguments(char.to_string())
            }
            Stage::AfterArguments if char == ',' => {
                self.stage = Stage::MoreFields;
                Read::More
            }
            // Small models omit the object's own closing brace: the call is complete without it.
            Stage::AfterArguments => done(char != '}'),
            Stage::MoreFields => {
                self.scan.feed(char);
                if self.scan.depth == 0 { done(false) } else { Read::More }
            }
        }
    }

    fn in_object(&mut self, char: char, object: &str, known: &[String]) -> Read {
        let may_begin = char == '{' && self.scan.depth == 1 && !self.scan.in_string;
        self.scan.feed(char);
        if may_begin
            && let Some(name) = name_before_arguments(object)
            && known.contains(&name)
        {
            self.stage = Stage::Arguments;
            return Read::Begun { name, arguments: char.to_string() };
        }
        if self.scan.depth > 0 {
            let is_field = self.scan.depth == 1 && !self.scan.in_string;
            return match char {
                ':' if is_field && !is_calls_field(object) => Read::NoCall,
                ',' if is_field && names_none(object, known) => Read::NoCall,
                _ => Read::More,
            };
        }
        match serde_json::from_str::<Whole>(object) {
            Ok(Whole { name, arguments }) if known.contains(&name) => {
                let arguments = arguments.map_or("{}", RawValue::get);
                if arguments.starts_with('{') {
                    Read::Whole { name, arguments: arguments.to_owned() }
                } else {
                    Read::NoCall
                }
            }
            _ => Read::NoCall,
        }
    }
}

fn done(left: bool) -> Read {
    Read::Done { arguments: String::new(), left }
}

#[derive(Deserialize)]
struct Whole<'a> {
    name: String,
    #[serde(borrow, default, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

/// Whether the field whose colon ends `object` can be part of a call.
fn is_calls_field(object: &str) -> bool {
    let field = object.trim_end_matches(':').trim_end().strip_suffix('"');
    let name = field.and_then(|field| field.rsplit_once('"')).map(|(_, name)| name);
    name.is_some_and(|name| ["name", "arguments", "parameters", "type", "id"].contains(&name))
}

/// Whether `object`, which ends with a comma, names an unknown tool.
fn names_none(object: &str, known: &[String]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let fields = object.trim_end_matches(',');
    serde_json::from_str::<Named>(&format!("{fields}}}"))
        .is_ok_and(|named| !known.contains(&named.name))
}

/// The call's name, if `object` ends with the brace that opens its arguments: a number in place of
/// the brace then completes the object.
fn name_before_arguments(object: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        name: String,
        #[serde(alias = "parameters", rename = "arguments")]
        _arguments: u8,
    }
    let before = object.strip_suffix('{')?;
    let head: Head = serde_json::from_str(&format!("{before}0}}")).ok()?;
    Some(head.name)
}
