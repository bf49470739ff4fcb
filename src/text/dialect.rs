//! The dialect of Jinja that chat templates are written in: what `transformers` adds to jinja2.
//!
//! <https://github.com/huggingface/transformers/blob/v4.46.0/src/transformers/utils/chat_template_utils.py>
//! compiles templates with `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`,
//! `strftime_now`, a `tojson` that does not escape HTML, and a `generation` block that only marks text.
//! Python's methods on strings, lists and dicts come from `minijinja_contrib::pycompat`.
//!
//! A template is a program from a file that a stranger wrote: it has no files and no other templates,
//! and so much fuel (which minijinja also charges for memory) and so many levels of recursion.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use regex::Regex;
use serde::Serialize;

/// Instructions, and 64-byte pieces of memory: a message costs some fifty and its length several times
/// over, so this is ten megabytes of conversation. All of it is burnt in about a second.
const FUEL: u64 = 5_000_000;
const RECURSION: usize = 100;

/// The message of `raise_exception`, as the source of the error that carries it out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Raised(pub String);

/// An environment with `source` compiled in it as `chat`.
pub fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    env.set_debug(false);
    // Python writes its constants with a capital.
    env.set_formatter(|out, state, value| match value {
        v if v.is_none() => Ok(out.write_str("None")?),
        v if v.kind() == minijinja::value::ValueKind::Bool => {
            Ok(out.write_str(if v.is_true() { "True" } else { "False" })?)
        }
        v => minijinja::escape_formatter(out, state, v),
    });
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", |format: String| {
        strftime(&format, SystemTime::now())
    });
    env.add_filter("tojson", tojson);
    env.add_template_owned("chat", without_generation_blocks(source))?;
    Ok(env)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `{% generation %}` marks the assistant's words for training; here it is a block like any other.
fn without_generation_blocks(source: &str) -> String {
    let replace = |source: &str, tag: &str, by: &str| match Regex::new(&format!(
        r"\{{%([-+]?)\s*{tag}\s*([-+]?)%\}}"
    )) {
        Ok(tag) => tag
            .replace_all(source, format!("{{%$1 {by} $2%}}"))
            .into_owned(),
        Err(_) => source.to_string(),
    };
    let source = replace(source, "generation", "if true");
    replace(&source, "endgeneration", "endif")
}

/// `json.dumps` as `transformers` calls it: non-ASCII stays, HTML is not escaped.
fn tojson(value: &Value, positional: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    if !positional.is_empty() {
        return Err(Error::new(
            ErrorKind::TooManyArguments,
            "tojson takes its options by name",
        ));
    }
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;

    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "separators are two strings",
            ));
        }
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
    };
    let mut json = Vec::new();
    let format = PythonJson {
        comma,
        colon,
        indent: indent.map(|n| n.min(64)),
        level: 0,
        empty: true,
    };
    let mut writer = serde_json::Serializer::with_formatter(&mut json, format);
    let written = if sort_keys == Some(true) {
        // serde_json's own maps are sorted, unless a crate somewhere asks for those that keep their order.
        serde_json::to_value(value).and_then(|mut sorted| {
            sorted.sort_all_objects();
            sorted.serialize(&mut writer)
        })
    } else {
        value.serialize(&mut writer)
    };
    written.map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let json = String::from_utf8(json)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from(if ensure_ascii == Some(true) {
        escape_non_ascii(&json)
    } else {
        json
    }))
}

/// JSON as Python spaces it.
struct PythonJson {
    comma: String,
    colon: String,
    indent: Option<usize>,
    level: usize,
    empty: bool,
}

impl PythonJson {
    fn open<W: ?Sized + std::io::Write>(&mut self, w: &mut W, c: &[u8]) -> std::io::Result<()> {
        self.level += 1;
        self.empty = true;
        w.write_all(c)
    }

    fn item<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> std::io::Result<()> {
        self.empty = false;
        if !first {
            w.write_all(self.comma.as_bytes())?;
        }
        self.line(w)
    }

    fn close<W: ?Sized + std::io::Write>(&mut self, w: &mut W, c: &[u8]) -> std::io::Result<()> {
        self.level -= 1;
        if !std::mem::replace(&mut self.empty, false) {
            self.line(w)?;
        }
        w.write_all(c)
    }

    fn line<W: ?Sized + std::io::Write>(&self, w: &mut W) -> std::io::Result<()> {
        match self.indent {
            None => Ok(()),
            Some(n) => write!(w, "\n{:1$}", "", n * self.level),
        }
    }
}

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.open(w, b"[")
    }
    fn end_array<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.close(w, b"]")
    }
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.item(w, first)
    }
    fn begin_object<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.open(w, b"{")
    }
    fn end_object<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.close(w, b"}")
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.item(w, first)
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        w.write_all(self.colon.as_bytes())
    }
}

fn escape_non_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// The moment in C's notation, in UTC: a template must not depend on where the server stands.
fn strftime(format: &str, now: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let days = seconds / 86400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let day_of_year = (1..month).map(|m| days_in(year, m)).sum::<u64>() + day;
    let hour12 = (hour + 11) % 12 + 1;

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        let mut number = |n: u64, width: usize| {
            let width = if bare { 0 } else { width };
            // Writing to a String cannot fail.
            let _ = write!(out, "{n:0width$}");
        };
        match code {
            Some('Y') => number(year, 4),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('j') => number(day_of_year, 3),
            Some('e') => {
                let _ = write!(out, "{day:2}");
            }
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('Z') => out.push_str("UTC"),
            Some('z') => out.push_str("+0000"),
            Some('F') => out.push_str(&strftime("%Y-%m-%d", now)),
            Some('T') => out.push_str(&strftime("%H:%M:%S", now)),
            Some('%') => out.push('%'),
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a day since 1970.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let length = (1..=12).map(|m| days_in(year, m)).sum();
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn render(source: &str) -> String {
        compile(source)
            .and_then(|env| env.get_template("chat")?.render(minijinja::context!()))
            .unwrap_or_else(|e| format!("error: {e}"))
    }

    #[test]
    fn templates_read_as_under_jinja2() {
        // Right-hand sides are what jinja2 3.1 with transformers' settings gives.
        for (source, text) in [
            ("{% if true %}\n  x\n{% endif %}\ny", "  x\ny"),
            ("a\n  {% set x = 1 %}\nb", "a\nb"),
            ("{{ '  a b '.strip().split(' ') | join('+') }}", "a+b"),
            ("{{ 'abc'.startswith('ab') }} {{ none }}", "True None"),
            ("{{ missing }}|{{ missing is defined }}", "|False"),
            ("{{ '<é>' }}", "<é>"),
            (
                "{{ {'b': [1, '<é>\"'], 'a': none} | tojson }}",
                r#"{"b": [1, "<é>\""], "a": null}"#,
            ),
            (
                "{{ {'b': 1, 'a': []} | tojson(indent=2) }}",
                "{\n  \"b\": 1,\n  \"a\": []\n}",
            ),
            (
                "{{ 'é😀' | tojson(ensure_ascii=true) }}",
                r#""\u00e9\ud83d\ude00""#,
            ),
            (
                "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
                r#"{"a": 2, "b": 1}"#,
            ),
            (
                "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
                "013",
            ),
            (
                "{% set n = namespace(x=0) %}{% for i in range(3) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}",
                "3",
            ),
            ("{%- generation -%}\n a {% endgeneration %}", "a "),
            (
                "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
                "a1",
            ),
            ("x\n", "x"),
            (
                "{{ {'a':[]} | tojson(separators=(',', ':')) }}",
                "{\"a\":[]}",
            ),
            ("{{ 'a' ~ true ~ none }}", "aTrueNone"),
            ("{{ [1, 'a', true, none] }}", "[1, 'a', True, None]"),
            ("{{ 'a'[5:] }}|{{ 'abc'[::-1] }}", "|cba"),
            ("{{ 'x' if false }}", ""),
            ("{{ 1.0 }} {{ 7 // 2 }} {{ 7 % 3 }}", "1.0 3 1"),
            ("{{ 'a\\nb' | indent(2) }}", "a\n  b"),
            (
                "{{ ['b', 'a'] | sort | first }} {{ 'abc' | length }} {{ ' x ' | trim }}",
                "a 3 x",
            ),
            ("{{ 'A-B'.lower().replace('-', '') | capitalize }}", "Ab"),
        ] {
            assert_eq!(render(source), text, "{source}");
        }
    }

    #[test]
    fn a_template_cannot_run_or_grow_for_ever() {
        for source in [
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% set n = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% include '/etc/passwd' %}",
            "{{ 'a' * 99999999999 }}",
        ] {
            assert!(render(source).starts_with("error: "), "{source}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, format, text) in [
            (
                0,
                "%A %-d %B %Y, %H:%M:%S %p",
                "Thursday 1 January 1970, 00:00:00 AM",
            ),
            (951_782_400, "%d %b %Y", "29 Feb 2000"),
            (
                1_732_233_599,
                "%F %T %a %j %I %e %y%%",
                "2024-11-21 23:59:59 Thu 326 11 21 24%",
            ),
        ] {
            let then = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(strftime(format, then), text);
        }
    }
}
