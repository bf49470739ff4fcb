use std::sync::Arc;

use super::{Constraint, Grammars, TokenTable};

const BOUNDS: [&str; 11] = [
    "-10", "-1.5", "-1", "-0.5", "0", "0.25", "0.5", "1", "1.5", "10", "100",
];
const BESIDE: [&str; 20] = [
    "-0", "-0.0", "0.0", "0.50", "0.51", "0.49", "0.001", "-0.51", "-0.49", "-0.01", "1.0", "1.01",
    "-1.0", "-1.01", "1.49", "9", "10.0", "10.5", "99", "101",
];

/// Numbers between all kinds of bounds are those that they say. (Not each that they allow is written: 1e2 is 100.)
#[test]
fn bounds_are_kept() {
    let bytes = (0..=255u8).map(|byte| vec![byte].into());
    let table = TokenTable {
        bytes: bytes.chain([Box::default()]).collect(),
        first: Vec::new(),
        ends: vec![256],
    };
    let grammars = Arc::new(Grammars::new(table).expect("sorted"));
    let accepts = |schema: &str, text: &str| {
        let constraint = Constraint::Schema(schema.into());
        let mut matcher = grammars.matcher(&constraint, false).ok()?;
        for byte in text.bytes() {
            let mut logits = [0.0; 257];
            matcher.mask(&mut logits);
            if matcher.is_done() || logits[usize::from(byte)] != 0.0 {
                return Some(false);
            }
            matcher.push(byte.into()).ok()?;
        }
        Some(matcher.is_complete())
    };
    let bounds = |inclusive: &str, exclusive: &str| -> Vec<(String, f64, bool)> {
        let both = [(inclusive, false), (exclusive, true)];
        let bounds = both.iter().flat_map(|&(key, excluded)| {
            BOUNDS.map(|bound| {
                let value = bound.parse().expect("a number");
                (format!(",\"{key}\":{bound}"), value, excluded)
            })
        });
        bounds.chain([(String::new(), f64::NAN, false)]).collect()
    };
    let mut n_accepted = 0;
    for kind in ["number", "integer"] {
        for (low, least, not_least) in bounds("minimum", "exclusiveMinimum") {
            for (high, most, not_most) in bounds("maximum", "exclusiveMaximum") {
                let schema = format!("{{\"type\":\"{kind}\"{low}{high}}}");
                for text in BOUNDS.iter().chain(&BESIDE) {
                    let value: f64 = text.parse().expect("a number");
                    let outside = value < least
                        || value > most
                        || not_least && value == least
                        || not_most && value == most
                        || kind == "integer" && value.fract() != 0.0;
                    let accepted = accepts(&schema, text) == Some(true);
                    assert!(!(accepted && outside), "{schema} {text}");
                    n_accepted += usize::from(accepted);
                }
            }
        }
    }
    assert!(n_accepted > 2000, "{n_accepted}");
}
