//! What is made of several sorted sets of one slot: ZUNION, ZINTER, ZDIFF, their STORE forms, and
//! ZINTERCARD. A plain set may stand among them; its members have the score 1.
//!
//! Scores are combined as Redis does it: of each input the score times its weight, from the
//! smallest input to the largest. Where that is no number it is zero.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::value::element::Element;
use crate::value::fields::{Fields, by_score};
use crate::value::view::{Kind, View, WrongType};

use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::set_algebra::limit;
use super::spec::Call;
use super::zset::show;
use super::zset_range::store;
use super::zset_score::{double, kept};

/// What is made of the inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// How the scores of one member become one.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse<'a>(word: &[u8]) -> Result<Aggregate, Fault<'a>> {
        match word {
            _ if is(word, "SUM") => Ok(Aggregate::Sum),
            _ if is(word, "MIN") => Ok(Aggregate::Min),
            _ if is(word, "MAX") => Ok(Aggregate::Max),
            _ => Err(Fault::Syntax),
        }
    }

    /// `more` may be no number: it is neither less nor greater than anything.
    fn of(self, score: f64, more: f64) -> f64 {
        match self {
            // Infinity and its opposite make nothing.
            Aggregate::Sum => number(score + more),
            Aggregate::Min if more < score => more,
            Aggregate::Max if more > score => more,
            Aggregate::Min | Aggregate::Max => score,
        }
    }
}

/// Nothing in the place of what is no number.
fn number(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// The members of one key.
struct Input<'v, 'a> {
    fields: Cow<'v, Fields<'a>>,
    weight: f64,
}

impl<'v, 'a> Input<'v, 'a> {
    fn of(view: Option<&'v View<'a>>) -> Result<Input<'v, 'a>, WrongType> {
        let fields = match view {
            None => Cow::Owned(Fields::none(Kind::Zset)),
            Some(view) if view.kind == Kind::Set => view.fields(Kind::Set)?,
            Some(view) => view.fields(Kind::Zset)?,
        };
        Ok(Input { fields, weight: 1.0 })
    }

    /// Times the weight: which may be no number.
    fn weighed(&self, member: &Element<'_>) -> f64 {
        let is_set = self.fields.kind() == Kind::Set;
        self.weight * if is_set { 1.0 } else { member.score }
    }

    fn score(&self, name: &[u8]) -> Option<f64> {
        self.fields.get(name).map(|member| self.weighed(&member))
    }

    fn members(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, f64)> {
        self.fields.iter().map(|member| {
            let score = number(self.weighed(&member));
            (member.name, score)
        })
    }
}

/// The inputs with what is to be done with them.
struct Inputs<'v, 'a> {
    inputs: Vec<Input<'v, 'a>>,
    operation: Operation,
    aggregate: Aggregate,
}

impl<'v, 'a> Inputs<'v, 'a> {
    /// The smallest first.
    fn rising(&self) -> Vec<&Input<'v, 'a>> {
        let mut inputs: Vec<_> = self.inputs.iter().collect();
        inputs.sort_by_key(|input| input.fields.len());
        inputs
    }

    /// What is in all of them: walked through the smallest, asked of the others.
    fn intersection(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, f64)> {
        let inputs = self.rising();
        let (smallest, others) = (inputs[0], inputs[1..].to_vec());
        smallest.members().filter_map(move |(name, score)| {
            let mut others = others.iter();
            let score = others
                .try_fold(score, |sum, other| Some(self.aggregate.of(sum, other.score(&name)?)));
            Some((name, score?))
        })
    }

    fn union(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, f64)> {
        let mut met: HashMap<Cow<'_, [u8]>, f64> = HashMap::new();
        for (name, score) in self.rising().into_iter().flat_map(Input::members) {
            met.entry(name)
                .and_modify(|sum| *sum = self.aggregate.of(*sum, score))
                .or_insert(score);
        }
        met.into_iter()
    }

    /// What is in the first and in no other: the largest of them is asked first.
    fn difference(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, f64)> {
        let mut others: Vec<_> = self.inputs[1..].iter().collect();
        others.sort_by_key(|input| std::cmp::Reverse(input.fields.len()));
        let is_left = move |name: &[u8]| others.iter().all(|other| !other.fields.contains(name));
        self.inputs[0].members().filter(move |(name, _)| is_left(name))
    }

    /// The result, in the order of a sorted set.
    fn result(&self) -> Vec<Element<'_>> {
        let scored = |(name, score)| Element::scored(name, score);
        let mut members: Vec<Element<'_>> = match self.operation {
            Operation::Union => self.union().map(scored).collect(),
            Operation::Inter => self.intersection().map(scored).collect(),
            Operation::Diff => self.difference().map(scored).collect(),
        };
        members.sort_by(by_score);
        members
    }
}

/// What a request asks beside its keys.
struct Wish<'v, 'a> {
    inputs: Inputs<'v, 'a>,
    with_scores: bool,
}

impl<'v, 'a> Wish<'v, 'a> {
    /// Reads the options behind the keys.
    fn parse<'f>(
        inputs: Vec<Input<'v, 'a>>,
        operation: Operation,
        stores: bool,
        mut words: &[&[u8]],
    ) -> Result<Wish<'v, 'a>, Fault<'f>> {
        let combines = operation != Operation::Diff;
        let inputs = Inputs { inputs, operation, aggregate: Aggregate::Sum };
        let mut wish = Wish { inputs, with_scores: false };
        while let [word, rest @ ..] = words {
            let inputs = &mut wish.inputs.inputs;
            if combines && rest.len() >= inputs.len() && is(word, "WEIGHTS") {
                let (weights, rest) = rest.split_at(inputs.len());
                for (input, weight) in inputs.iter_mut().zip(weights) {
                    input.weight = double(weight).ok_or(Fault::Weight)?;
                }
                words = rest;
            } else if combines && !rest.is_empty() && is(word, "AGGREGATE") {
                wish.inputs.aggregate = Aggregate::parse(rest[0])?;
                words = &rest[1..];
            } else if !stores && is(word, "WITHSCORES") {
                wish.with_scores = true;
                words = rest;
            } else {
                return Err(Fault::Syntax);
            }
        }
        Ok(wish)
    }
}

/// Some of the arguments.
type Words<'c, 'a> = &'c [&'a [u8]];

/// The keys behind the argument at place `at`, which counts them, and the words behind those.
fn counted_keys<'c, 'a>(
    args: &'c [&'a [u8]],
    at: usize,
    command: &'static str,
) -> Result<(Words<'c, 'a>, Words<'c, 'a>), Fault<'a>> {
    let number = integer(args[at])?;
    if number < 1 {
        return Err(Fault::NoInput(command));
    }
    let number = usize::try_from(number).map_err(|_| Fault::Syntax)?;
    args[at + 1..].split_at_checked(number).ok_or(Fault::Syntax)
}

fn views_of<'r>(call: &Call<'_, 'r>, keys: &[&[u8]]) -> Vec<Option<View<'r>>> {
    keys.iter().map(|key| call.views.view(key)).collect()
}

fn inputs_of<'v, 'a>(views: &'v [Option<View<'a>>]) -> Result<Vec<Input<'v, 'a>>, WrongType> {
    views.iter().map(|view| Input::of(view.as_ref())).collect()
}

fn combine(call: &mut Call<'_, '_>, command: &'static str, operation: Operation, stores: bool) {
    answer(call, |call| {
        let at = if stores { 2 } else { 1 };
        let (keys, words) = counted_keys(call.args, at, command)?;
        let views = views_of(call, keys);
        let wish = Wish::parse(inputs_of(&views)?, operation, stores, words)?;
        let members = wish.inputs.result();
        if stores {
            let own =
                |member: Element<'_>| Element { score: kept(member.score), ..member.into_owned() };
            store(call, call.args[1], members.into_iter().map(own).collect());
        } else {
            show(call.reply, members.len(), members, wish.with_scores);
        }
        Ok(())
    });
}

/// `ZUNION numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`.
pub fn zunion(call: &mut Call<'_, '_>) {
    combine(call, "zunion", Operation::Union, false);
}

/// `ZINTER numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`.
pub fn zinter(call: &mut Call<'_, '_>) {
    combine(call, "zinter", Operation::Inter, false);
}

/// `ZDIFF numkeys key [key …] [WITHSCORES]`.
pub fn zdiff(call: &mut Call<'_, '_>) {
    combine(call, "zdiff", Operation::Diff, false);
}

/// `ZUNIONSTORE destination numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX]`.
pub fn zunionstore(call: &mut Call<'_, '_>) {
    combine(call, "zunionstore", Operation::Union, true);
}

/// `ZINTERSTORE destination numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX]`.
pub fn zinterstore(call: &mut Call<'_, '_>) {
    combine(call, "zinterstore", Operation::Inter, true);
}

/// `ZDIFFSTORE destination numkeys key [key …]`.
pub fn zdiffstore(call: &mut Call<'_, '_>) {
    combine(call, "zdiffstore", Operation::Diff, true);
}

/// `ZINTERCARD numkeys key [key …] [LIMIT limit]`.
pub fn zintercard(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (keys, words) = counted_keys(call.args, 1, "zintercard")?;
        let views = views_of(call, keys);
        let inputs = inputs_of(&views)?;
        let limit = limit(words)?;
        let enough = if limit == 0 { usize::MAX } else { limit };
        let (operation, aggregate) = (Operation::Inter, Aggregate::Sum);
        let inputs = Inputs { inputs, operation, aggregate };
        call.reply.integer(inputs.intersection().take(enough).count() as i64);
        Ok(())
    });
}
