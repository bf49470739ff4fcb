//! A grammar's rules, and how short a text each of them can be.

use std::collections::VecDeque;

use ahash::AHashMap;
use llguidance::earley::lexerspec::LexemeIdx;
use llguidance::earley::{CGrammar, CSymIdx, ParamValue};

/// Bytes of a text, of which no token needs more than one.
pub(super) type Cost = u32;
/// No text is so short.
pub(super) const NEVER: Cost = Cost::MAX;
/// A text that was not found in reasonable time: longer than any that is used.
pub(super) const UNKNOWN: Cost = 1 << 20;
/// A rule that takes a parameter is one for each value that it takes.
const MAX_RULES: usize = 50_000;

pub(super) fn add(a: Cost, b: Cost) -> Cost {
    if a == NEVER || b == NEVER {
        NEVER
    } else {
        a.saturating_add(b).min(NEVER - 1)
    }
}

/// What may stand in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Lexeme(LexemeIdx),
    Rule(u32),
    /// The end of one of this rule's alternatives.
    End(u32),
}

/// All rules. The first is where texts start.
#[derive(Debug, Default)]
pub(super) struct Rules {
    // The alternatives in a row, each with its end: a place in here is a dot of Earley's
    symbols: Vec<Symbol>,
    // By place: the rule that it is in, and the cost of what is left of the alternative
    lhs: Vec<u32>,
    rest: Vec<Cost>,
    rules: Vec<Rule>,
}

#[derive(Debug, Default)]
struct Rule {
    alternatives: Vec<u32>,
    nullable: bool,
    cost: Cost,
    // The cheapest alternative, none where that is the empty text
    cheapest: Option<u32>,
}

impl Rules {
    /// `None` when they are too many.
    pub(super) fn new(grammar: &CGrammar, mut cost: impl FnMut(LexemeIdx) -> Cost) -> Option<Self> {
        let mut rules = Self::default();
        let mut known: AHashMap<(CSymIdx, ParamValue), u32> = AHashMap::new();
        let mut open = VecDeque::new();
        let n_lexemes = grammar.lexer_spec().lexemes.len();
        let mut costs: Vec<Option<Cost>> = vec![None; n_lexemes];
        let mut find = |rules: &mut Vec<Rule>, open: &mut VecDeque<_>, symbol, value| {
            *known.entry((symbol, value)).or_insert_with(|| {
                open.push_back((symbol, value));
                rules.push(Rule::default());
                rules.len() as u32 - 1
            })
        };
        find(
            &mut rules.rules,
            &mut open,
            grammar.start(),
            ParamValue::default(),
        );
        let mut n = 0;
        while let Some((symbol, value)) = open.pop_front() {
            if rules.rules.len() > MAX_RULES {
                return None;
            }
            let data = grammar.sym_data(symbol);
            rules.rules[n].nullable =
                data.is_nullable || data.cond_nullable.iter().any(|cond| cond.eval(value));
            let holding = data.rules.iter().zip(&data.rules_cond);
            for (&rule, _) in holding.filter(|(_, cond)| cond.eval(value)) {
                rules.rules[n].alternatives.push(rules.symbols.len() as u32);
                let (symbols, values, _) = grammar.rule_rhs(rule);
                for (&symbol, of) in symbols.iter().zip(values) {
                    rules.symbols.push(match grammar.sym_data(symbol).lexeme {
                        Some(lexeme) => {
                            costs[lexeme.as_usize()].get_or_insert_with(|| cost(lexeme));
                            Symbol::Lexeme(lexeme)
                        }
                        None => {
                            Symbol::Rule(find(&mut rules.rules, &mut open, symbol, of.eval(value)))
                        }
                    });
                }
                rules.symbols.push(Symbol::End(n as u32));
                rules.lhs.resize(rules.symbols.len(), n as u32);
            }
            n += 1;
        }
        rules.find_costs(&costs);
        Some(rules)
    }

    /// The least fixed point. Those that a rule is made of mostly come after it.
    fn find_costs(&mut self, lexemes: &[Option<Cost>]) {
        for rule in &mut self.rules {
            rule.cost = if rule.nullable { 0 } else { NEVER };
        }
        let mut changed = true;
        while changed {
            changed = false;
            for r in (0..self.rules.len()).rev() {
                for i in 0..self.rules[r].alternatives.len() {
                    let alternative = self.rules[r].alternatives[i];
                    let symbols = self.symbols[alternative as usize..].iter();
                    let cost = symbols
                        .take_while(|symbol| !matches!(symbol, Symbol::End(_)))
                        .fold(0, |sum, symbol| {
                            add(sum, self.symbol_cost(*symbol, lexemes))
                        });
                    let rule = &mut self.rules[r];
                    if cost < rule.cost {
                        (rule.cost, rule.cheapest) = (cost, Some(alternative));
                        changed = true;
                    }
                    // Of rules that can be empty, too, which llguidance leaves out.
                    if cost == 0 && !rule.nullable {
                        rule.nullable = true;
                        changed = true;
                    }
                }
            }
        }
        self.rest = vec![0; self.symbols.len()];
        for place in (0..self.symbols.len()).rev() {
            let symbol = self.symbols[place];
            if !matches!(symbol, Symbol::End(_)) {
                self.rest[place] = add(self.symbol_cost(symbol, lexemes), self.rest[place + 1]);
            }
        }
    }

    fn symbol_cost(&self, symbol: Symbol, lexemes: &[Option<Cost>]) -> Cost {
        match symbol {
            Symbol::Lexeme(lexeme) => lexemes[lexeme.as_usize()].unwrap_or(NEVER),
            Symbol::Rule(rule) => self.rules[rule as usize].cost,
            Symbol::End(_) => 0,
        }
    }

    /// The shortest text of all.
    pub(super) fn cost(&self) -> Cost {
        self.rules[0].cost
    }

    pub(super) fn symbol(&self, dot: u32) -> Symbol {
        self.symbols[dot as usize]
    }

    /// The rule that a dot is in.
    pub(super) fn lhs(&self, dot: u32) -> u32 {
        self.lhs[dot as usize]
    }

    /// The cost of what is left after a dot, up to the end of its rule.
    pub(super) fn rest(&self, dot: u32) -> Cost {
        self.rest[dot as usize]
    }

    pub(super) fn alternatives(&self, rule: u32) -> &[u32] {
        &self.rules[rule as usize].alternatives
    }

    pub(super) fn is_nullable(&self, rule: u32) -> bool {
        self.rules[rule as usize].nullable
    }

    /// Where the cheapest alternative begins; none where that is the empty text.
    pub(super) fn cheapest(&self, rule: u32) -> Option<u32> {
        self.rules[rule as usize].cheapest
    }
}
