use std::sync::Arc;

use crate::sample::{Calls, Constraint, Grammars, Matcher, Sampler, SamplingParams, TokenTable};

const END: u32 = 0;

/// Each byte, and some words.
fn vocabulary(words: &[&str]) -> Arc<Grammars> {
    let bytes = (0..=255u8).map(|byte| vec![byte].into());
    let words = words.iter().map(|word| word.as_bytes().into());
    let table = TokenTable {
        bytes: std::iter::once(Box::default())
            .chain(bytes)
            .chain(words)
            .collect(),
        first: Vec::new(),
        ends: vec![END],
    };
    Arc::new(Grammars::new(table).expect("sorted"))
}

fn some_words() -> Arc<Grammars> {
    vocabulary(&[
        "[[", "]]", "{\"", "\":", "true", "\",\"", "aaaa", " b", "},{",
    ])
}

fn schema(text: &str) -> Constraint {
    Constraint::Schema(text.into())
}

fn lark(text: &str) -> Constraint {
    Constraint::Lark(text.into())
}

fn text_of(grammars: &Grammars, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids
        .iter()
        .filter(|&&id| id != END)
        .flat_map(|&id| grammars.bytes(id, false).to_vec())
        .collect();
    String::from_utf8(bytes).expect("whole characters")
}

/// Writes at most `left` tokens as a model that does not want to end, and says whether the text was complete then.
fn write(
    grammars: &Arc<Grammars>,
    constraint: &Constraint,
    mut left: usize,
    seed: u64,
) -> (String, bool) {
    let mut matcher = grammars.matcher(constraint, false).expect("a grammar");
    let n = grammars.tokens.tok_trie().vocab_size();
    let mut sampler = Sampler::new(SamplingParams::default(), &[], vec![END], seed);
    while left > 0 && !matcher.is_done() {
        let mut logits = vec![0.0; n];
        logits[END as usize] = -20.0;
        for byte in "\"]}.)".bytes() {
            logits[1 + byte as usize] = -20.0;
        }
        let id = sampler.sample_within(&mut logits, &mut matcher, left);
        matcher.push(id.expect("a token")).expect("allowed");
        left -= 1;
        assert!(matcher.charts_agree());
    }
    (text_of(grammars, sampler.ids()), matcher.is_complete())
}

/// The text at the very start, with an ending from there.
fn shortest(grammars: &Arc<Grammars>, constraint: &Constraint) -> Option<String> {
    shortest_after(grammars, constraint, "")
}

fn shortest_after(
    grammars: &Arc<Grammars>,
    constraint: &Constraint,
    begin: &str,
) -> Option<String> {
    let mut matcher: Matcher = grammars.matcher(constraint, false).expect("a grammar");
    let mut ids: Vec<u32> = begin.bytes().map(|byte| 1 + u32::from(byte)).collect();
    for &id in &ids {
        matcher.push(id).expect("allowed");
    }
    while let Some(id) = matcher.toward_end(10_000).filter(|&id| id != END) {
        matcher.push(id).expect("allowed");
        ids.push(id);
        if matcher.is_done() {
            break;
        }
    }
    matcher.is_complete().then(|| text_of(grammars, &ids))
}

const CALLS: &str = r#"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},
    "required":["city","days"],"additionalProperties":false}"#;

fn cases() -> Vec<(Constraint, &'static str)> {
    vec![
        (schema(r#"{"type":"string"}"#), r#""""#),
        (schema(r#"{"type":"string","minLength":3}"#), r#""aaa""#),
        (schema(r#"{"type":"integer"}"#), "0"),
        (schema(r#"{"type":"integer","minimum":100}"#), "100"),
        (
            schema(r#"{"type":"number","minimum":0.2,"maximum":0.5}"#),
            "0.2",
        ),
        (schema(r#"{"enum":["orange","fig","plum"]}"#), r#""fig""#),
        (
            schema(r#"{"type":"string","format":"date"}"#),
            r#""0001-01-01""#,
        ),
        (
            schema(r#"{"type":"array","items":{"type":"boolean"},"minItems":2}"#),
            "[true,true]",
        ),
        (
            schema(
                r#"{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"string"},
                "c":{"type":"null"}},"required":["b"],"additionalProperties":false},"d":{"type":"boolean"}},
                "required":["a","d"],"additionalProperties":false}"#,
            ),
            r#"{"a":{"b":""},"d":true}"#,
        ),
        // Twenty choices in a row: no search over texts would end.
        (
            schema(r#"{"type":"array","items":{"enum":["one","two","six"]},"minItems":20}"#),
            concat!(
                r#"["one","one","one","one","one","one","one","one","one","one","#,
                r#""one","one","one","one","one","one","one","one","one","one"]"#
            ),
        ),
        (
            schema(
                r##"{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"null"},
                "next":{"$ref":"#/$defs/tree"}},"required":["v"],"additionalProperties":false}}}"##,
            ),
            r#"{"v":null}"#,
        ),
        (schema("true"), "0"),
        (Constraint::Regex("[a-z]{4,}x".into()), "aaaax"),
        (Constraint::Regex("(ab|c)+(de){2,3}".into()), "cdede"),
        (Constraint::Regex("é{3}".into()), "ééé"),
        (
            lark("start: e\ne: t ((\"+\"|\"-\") t)*\nt: /[0-9]{2,}/ | \"(\" e \")\""),
            "00",
        ),
        (
            // Right recursion, and an alternative that is longer than it looks
            lark("start: item\nitem: \"x\" item | end\nend: \"stop\" \"now\" | \"quit\""),
            "quit",
        ),
        (
            lark(
                "start: \"<\" %json {\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"null\"}} \">\"",
            ),
            "<[null]>",
        ),
        (
            Constraint::Calls(Calls {
                functions: vec![("weather".into(), CALLS.into())],
                prefix: String::new(),
                or_text: false,
            }),
            r#"[{"name":"weather","arguments":{"city":"","days":0}}]"#,
        ),
    ]
}

#[test]
fn the_shortest_ending_is_the_shortest() {
    let grammars = vocabulary(&[]);
    for (constraint, expected) in cases() {
        let found = shortest(&grammars, &constraint).expect("known");
        assert_eq!(found.len(), expected.len(), "{found} {constraint:?}");
        if !expected.contains(['0', '1', '2', '6']) {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn the_shortest_way_on_is_taken() {
    let grammars = vocabulary(&[]);
    let array =
        r#"{"type":"array","items":{"type":"array","minItems":2,"items":{"type":"string"}}}"#;
    for (constraint, begin, expected) in [
        (schema(array), r#"[["a","#, r#"[["a",""]]"#),
        (schema(array), r#"[["a"#, r#"[["a",""]]"#),
        (
            lark("start: a \"long\" | a \"z\"\na: \"xxx\""),
            "xx",
            "xxxz",
        ),
        // In one of the two rules that may have begun, and then in the other
        (
            lark("start: a \"longer\" | b \"z\"\na: \"x\" c\nb: \"x\" \"y\" c\nc: \"y\"+"),
            "x",
            "xyyz",
        ),
        (
            lark("start: \"(\" start \")\" | \"[\" start \"then\" start \"]\" | \"x\""),
            "(([(x",
            "(([(x)thenx]))",
        ),
        (
            lark("start: list\nlist: list \",\" item | item\nitem: \"abc\" \";\"?"),
            "abc,ab",
            "abc,abc",
        ),
        (
            Constraint::Regex("(abc|abd{5})(e|f{3})".into()),
            "ab",
            "abce",
        ),
    ] {
        let found = shortest_after(&grammars, &constraint, begin);
        assert_eq!(found.as_deref(), Some(expected), "{constraint:?}");
    }
}

#[test]
fn a_text_ends_within_every_budget_from_the_shortest_on() {
    for grammars in [vocabulary(&[]), some_words()] {
        for (constraint, expected) in cases() {
            let least = expected.len();
            for left in [
                least,
                least + 1,
                least + 2,
                least + 7,
                3 * least,
                100 + least,
                400,
            ] {
                for seed in 0..6 {
                    let (text, complete) = write(&grammars, &constraint, left, seed);
                    assert!(complete, "{left} {seed} {text} {constraint:?}");
                    match &constraint {
                        Constraint::Regex(regex) => {
                            let whole =
                                regex::Regex::new(&format!("^(?:{regex})$")).expect("valid");
                            assert!(whole.is_match(&text), "{text}");
                        }
                        Constraint::Lark(_) => {}
                        // Numbers may be larger than a double.
                        _ => drop(
                            serde_json::from_str::<serde::de::IgnoredAny>(&text).expect("JSON"),
                        ),
                    }
                }
            }
        }
    }
}

/// Far from the end, where nothing steers, the chart follows texts that go anywhere.
#[test]
fn the_chart_is_that_of_llguidance() {
    let grammars = some_words();
    let more = [
        schema(r#"{"type":"object","patternProperties":{"^x[a-z]*$":{"type":"integer"}}}"#),
        schema(r#"{"anyOf":[{"const":"ab"},{"type":"string","pattern":"^a"},{"type":"array"}]}"#),
        lark(
            "start: (WORD | NUMBER | sum)+\nsum: NUMBER (\"+\" NUMBER)+\nWORD: /[a-z]+/\nNUMBER: /[0-9]+/\n%ignore /[ \\n]+/",
        ),
        lark(
            "start: \"if\" e \"then\" s | s\ns: NAME \"=\" e\ne: NAME | e \"or\" e | \"\"\nNAME: /[a-z]+/\n%ignore \" \"",
        ),
        lark("start: a b? c*\na: \"x\"*\nb: /y{2,}/\nc: (\"z\" | a \"w\")"),
        lark("start: open* \"!\"\nopen[suffix=\"<\"]: /[^!]*/"),
        lark(
            "start: \"[\" item (\",\" item)* \"]\"\nitem: %json {\"type\":[\"string\",\"object\"]}\n%ignore / /",
        ),
    ];
    for constraint in cases().into_iter().map(|(c, _)| c).chain(more) {
        for seed in 0..8 {
            write(&grammars, &constraint, 1000, seed);
        }
    }
}

#[test]
fn words_count_as_one_token() {
    let grammars = some_words();
    let constraint = schema(r#"{"type":"array","items":{"type":"boolean"},"minItems":2}"#);
    // [ true , true ]
    for seed in 0..10 {
        let (text, complete) = write(&grammars, &constraint, 5, seed);
        assert_eq!((text.as_str(), complete), ("[true,true]", true));
        assert!(!write(&grammars, &constraint, 4, seed).1);
    }
}

#[test]
fn far_from_the_end_nothing_changes() {
    let grammars = some_words();
    let constraint = schema(r#"{"type":"array","items":{"type":"string","maxLength":9}}"#);
    let texts = |left| write(&grammars, &constraint, left, 3).0;
    let (short, long) = (texts(100), texts(1000));
    let common = short.bytes().zip(long.bytes()).take_while(|(a, b)| a == b);
    assert!(common.count() > 80, "{short}\n{long}");
    assert!(long.len() > short.len());
}

#[test]
fn words_that_run_into_each_other_are_kept_apart() {
    let grammars = vocabulary(&[]);
    let constraint = lark(
        "start: stmt\nstmt: \"select\" NAME \";\" | NAME \"=\" NAME NAME NAME NAME \";\"\nNAME: /[a-z]{6,}/\n%ignore / /",
    );
    for left in 16..40 {
        let (text, complete) = write(&grammars, &constraint, left, left as u64);
        assert!(complete, "{left} {text}");
    }
}

#[test]
fn rules_with_parameters_end() {
    let grammars = vocabulary(&[]);
    // Each of three letters once, in any order
    let constraint = lark(
        "start: some::0x0
some::_: \"X\" %if is_ones([0:3])
    | \"a\" some::set_bit(0) %if bit_clear(0)
    | \"b\" some::set_bit(1) %if bit_clear(1)
    | \"c\" some::set_bit(2) %if bit_clear(2)",
    );
    assert_eq!(shortest(&grammars, &constraint).expect("known").len(), 4);
    for seed in 0..9 {
        let (text, complete) = write(&grammars, &constraint, 4, seed);
        assert!(complete, "{text}");
    }
    // Any number of letters, counted
    let counted =
        lark("start: some::0\nsome::_: \"a\" some::incr(_) %if lt(_, 30) | \"X\" %if ge(_, 3)");
    for left in 4..12 {
        let (text, complete) = write(&grammars, &counted, left, 5);
        assert!(complete, "{text}");
    }
}

#[test]
fn a_text_that_needs_an_end_token_gets_one() {
    let grammars = vocabulary(&[]);
    let constraint = Constraint::Regex("a|a{9}".into());
    for seed in 0..8 {
        assert_eq!(write(&grammars, &constraint, 5, seed), ("a".into(), true));
        let long = write(&grammars, &constraint, 9, seed).0;
        assert_eq!(long, "aaaaaaaaa");
    }
}

#[test]
fn what_is_forbidden_stays_forbidden() {
    let grammars = vocabulary(&[]);
    let quote = 1 + u32::from(b'"');
    let mut matcher = grammars
        .matcher(&schema(r#"{"type":"string"}"#), false)
        .expect("a grammar");
    matcher.push(quote).expect("allowed");
    let params = SamplingParams {
        logit_bias: vec![(quote, f32::NEG_INFINITY)],
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(params, &[], vec![END], 1);
    let mut logits = vec![0.0; 257];
    let id = sampler.sample_within(&mut logits, &mut matcher, 1);
    assert_ne!(id.expect("a token"), quote);
}

#[test]
fn where_no_ending_is_known_texts_are_as_before() {
    // The vocabulary has no `}`; a rule ends after so many tokens.
    let bytes = (0..=255u8).map(|byte| if byte == b'}' { vec![] } else { vec![byte] });
    let table = TokenTable {
        bytes: std::iter::once(vec![])
            .chain(bytes)
            .map(Into::into)
            .collect(),
        first: Vec::new(),
        ends: vec![END],
    };
    let poor = Arc::new(Grammars::new(table).expect("sorted"));
    let braces = Constraint::Regex("a*[}]".into());
    let (text, complete) = write(&poor, &braces, 30, 1);
    assert_eq!((text.len(), complete), (30, false));
    let limited = lark("start: a \".\"\na[max_tokens=5]: /[a-z]+/");
    assert_eq!(shortest(&vocabulary(&[]), &limited), None);
    let long = Constraint::Regex("a{40000}".into());
    assert_eq!(shortest(&vocabulary(&[]), &long), None);
}

#[test]
fn plain_text_beside_calls_is_not_ended() {
    let grammars = vocabulary(&[]);
    let constraint = Constraint::Calls(Calls {
        functions: vec![("weather".into(), CALLS.into())],
        prefix: "call".into(),
        or_text: true,
    });
    let (mut calls, mut texts) = (0, 0);
    for seed in 0..20 {
        let mut matcher = grammars.matcher(&constraint, false).expect("a grammar");
        let mut sampler = Sampler::new(SamplingParams::default(), &[], vec![END], seed);
        let begin = if seed % 2 == 0 { "call[" } else { "Once" };
        for byte in begin.bytes() {
            matcher.push(1 + u32::from(byte)).expect("allowed");
        }
        let mut left = 80;
        while left > 0 && !matcher.is_done() {
            let mut logits = vec![0.0; 257];
            logits[END as usize] = -20.0;
            let id = sampler.sample_within(&mut logits, &mut matcher, left);
            matcher.push(id.expect("a token")).expect("allowed");
            left -= 1;
        }
        if seed % 2 == 0 {
            assert!(matcher.is_complete());
            calls += 1;
        } else {
            assert!(!matcher.is_complete() && left == 0);
            texts += 1;
        }
    }
    assert_eq!((calls, texts), (10, 10));
}

#[test]
fn grammars_without_a_finite_text_are_refused() {
    let grammars = vocabulary(&[]);
    for text in [
        "start: a\na: \"x\" a",
        "start: \"(\" a \")\" | b\na: b \"y\"\nb: \"z\" a",
    ] {
        let error = grammars.matcher(&lark(text), false).err().expect("refused");
        assert_eq!(
            error.to_string(),
            "grammar cannot be used: no text that `start` derives has an end, because of rules that always need themselves \
             again"
        );
    }
    assert!(
        grammars
            .matcher(&lark("start: a\na: \"x\" a | \"y\""), false)
            .is_ok()
    );
}

#[test]
fn the_space_that_goes_at_the_start_is_no_part_of_a_text() {
    let bytes = (0..=255u8).map(|byte| vec![byte].into());
    let (word, words) = (257, [&b" x"[..], b"xxxx"].map(Into::into));
    let table = TokenTable {
        bytes: std::iter::once(Box::default())
            .chain(bytes)
            .chain(words)
            .collect(),
        first: vec![(word, b"x"[..].into())],
        ends: vec![END],
    };
    let grammars = Arc::new(Grammars::new(table).expect("sorted"));
    let least = |regex: &str, at_start| {
        let constraint = Constraint::Regex(regex.into());
        let mut matcher = grammars.matcher(&constraint, at_start).expect("a grammar");
        (1..9).find(|&left| matcher.toward_end(left).is_some())
    };
    assert_eq!((least(" x", true), least(" x", false)), (Some(2), Some(1)));
    assert_eq!(least("x x x", true), Some(3));
    assert_eq!(least("x{5}", true), Some(2));
    let fits = |left, at_start| {
        let constraint = Constraint::Regex("x| x{9}".into());
        let mut matcher = grammars.matcher(&constraint, at_start).expect("a grammar");
        matcher.fits(word, left)
    };
    // `x` is complete; eight letters are missing from ` x`, which are two tokens.
    assert!(fits(0, true));
    assert_eq!([1, 2].map(|left| fits(left, false)), [false, true]);
}
