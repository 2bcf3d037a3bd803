//! Reads one tool call, a JSON object, character by character, and tells its arguments as they come.
//!
//! Pure. An object that turns out to be no call of a known tool is given back as the text it was.

use serde::Deserialize;
use serde_json::value::RawValue;

/// What one more character was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing to tell yet.
    More,
    /// The name is known, and with this character the arguments begin.
    Begun { name: String },
    /// One more character of the arguments.
    Arguments,
    /// A whole call whose arguments came before its name.
    Whole { name: String, arguments: String },
    /// A call that was begun has ended; the character belongs to it unless `left`.
    Done { left: bool },
    /// No call of a known tool.
    NoCall,
}

/// One call on its way.
#[derive(Debug)]
pub(super) struct CallReader {
    /// The tag that came before; shown if this is no call.
    pub(super) opener: &'static str,
    /// Everything read since.
    pub(super) read: String,
    /// Where in `read` what may be the object begins, blanks included.
    body: usize,
    /// Where in `read` the object begins.
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

impl CallReader {
    /// `in_array`: the object stands first in an array.
    pub(super) fn new(opener: &'static str, in_array: bool) -> Self {
        let stage = if in_array { Stage::BeforeArray } else { Stage::BeforeObject };
        Self { opener, read: String::new(), body: 0, object: 0, stage, scan: JsonScan::default() }
    }

    /// Whether a tag came before, which has no other meaning.
    pub(super) fn is_tagged(&self) -> bool {
        !self.opener.is_empty()
    }

    /// What was read of the object, if it is bound to be a call: it stands after a tag, or begins with the name of a
    /// known tool; and if its arguments have not begun.
    pub(super) fn surely_begun(&self, known: &[String]) -> Option<&str> {
        let begun = match self.stage {
            Stage::BeforeObject => self.is_tagged(),
            Stage::Object => {
                let read = &self.read[self.object..];
                let named = |name: &String| read.starts_with(&format!("{{\"name\": \"{name}\""));
                self.is_tagged() || known.iter().any(named)
            }
            _ => false,
        };
        begun.then(|| &self.read[self.body..])
    }

    /// Whether a client has been told of the call.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Arguments | Stage::AfterArguments | Stage::MoreFields)
    }

    pub(super) fn feed(&mut self, char: char, known: &[String]) -> Read {
        if !self.has_begun() {
            self.read.push(char);
        }
        match self.stage {
            Stage::BeforeArray | Stage::BeforeObject | Stage::AfterArguments
                if char.is_whitespace() =>
            {
                Read::More
            }
            Stage::BeforeArray if char == '[' => {
                self.body = self.read.len();
                self.stage = Stage::BeforeObject;
                Read::More
            }
            Stage::BeforeObject if char == '{' => {
                self.object = self.read.len() - 1;
                self.stage = Stage::Object;
                self.scan.feed(char);
                Read::More
            }
            Stage::BeforeArray | Stage::BeforeObject => Read::NoCall,
            Stage::Object => self.in_object(char, known),
            Stage::Arguments => {
                self.scan.feed(char);
                if self.scan.depth == 1 {
                    self.stage = Stage::AfterArguments;
                }
                Read::Arguments
            }
            Stage::AfterArguments if char == ',' => {
                self.stage = Stage::MoreFields;
                Read::More
            }
            // Small models forget the object's own closing brace: the call is whole all the same.
            Stage::AfterArguments => Read::Done { left: char != '}' },
            Stage::MoreFields => {
                self.scan.feed(char);
                if self.scan.depth == 0 { Read::Done { left: false } } else { Read::More }
            }
        }
    }

    fn in_object(&mut self, char: char, known: &[String]) -> Read {
        let may_begin = char == '{' && self.scan.depth == 1 && !self.scan.in_string;
        self.scan.feed(char);
        if may_begin
            && let Some(name) = name_before_arguments(&self.read[self.object..])
            && known.contains(&name)
        {
            self.stage = Stage::Arguments;
            return Read::Begun { name };
        }
        if self.scan.depth > 0 {
            let is_field = self.scan.depth == 1 && !self.scan.in_string;
            return match char {
                ':' if is_field && !is_calls_field(&self.read[self.object..]) => Read::NoCall,
                ',' if is_field && names_none(&self.read[self.object..], known) => Read::NoCall,
                _ => Read::More,
            };
        }
        match serde_json::from_str::<Whole>(&self.read[self.object..]) {
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

#[derive(Deserialize)]
struct Whole<'a> {
    name: String,
    #[serde(borrow, default, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

/// Whether the field whose colon `object` ends with may stand in a call.
fn is_calls_field(object: &str) -> bool {
    let field = object.trim_end_matches(':').trim_end().strip_suffix('"');
    let name = field.and_then(|field| field.rsplit_once('"')).map(|(_, name)| name);
    name.is_some_and(|name| ["name", "arguments", "parameters", "type", "id"].contains(&name))
}

/// Whether `object`, which ends with a comma, has a name that is not among the known ones.
fn names_none(object: &str, known: &[String]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let fields = object.trim_end_matches(',');
    serde_json::from_str::<Named>(&format!("{fields}}}"))
        .is_ok_and(|named| !known.contains(&named.name))
}

/// The call's name, if `object` ends with the brace that opens its arguments: then a number in that place makes the
/// object whole.
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

/// Knows where a JSON value ends.
#[derive(Debug, Default)]
struct JsonScan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonScan {
    fn feed(&mut self, char: char) {
        match char {
            _ if self.escaped => self.escaped = false,
            '\\' if self.in_string => self.escaped = true,
            '"' => self.in_string = !self.in_string,
            '{' | '[' if !self.in_string => self.depth += 1,
            '}' | ']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
