//! The bytes of a HyperLogLog, as Redis has them, and the estimate (Flajolet and others, 2007; the
//! estimator is Ertl's, 2017).
//!
//! ```text
//! ┌──────┬─────────┬───────┬───────────────────────────────────────────┬───────────┐
//! │ HYLL │ form u8 │ 3 × 0 │ estimate u64, with its top bit: it is old │ registers │
//! └──────┴─────────┴───────┴───────────────────────────────────────────┴───────────┘
//! form 0, dense    16,384 registers of 6 bits, the lowest bits of a byte first
//! form 1, sparse   00nnnnnn            n + 1 registers are 0
//!                  01nnnnnn nnnnnnnn   the same
//!                  1vvvvvnn            n + 1 registers are v + 1
//! ```
//!
//! An element's hash chooses a register, and its zeros before the first one are how high that
//! register must be at least. Registers only rise, so two sketches merge by the greater of each: what
//! comes out is the sketch of both sets.

use super::fault::Fault;

/// Registers of a sketch: the standard error is 0.81 %.
const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;

/// Bits of a hash in which zeros are counted.
const RANK_BITS: u32 = 64 - INDEX_BITS;

/// The highest value of a register.
const RANK_MAX: u32 = RANK_BITS + 1;

const HEADER_SIZE: usize = 16;
const DENSE_SIZE: usize = HEADER_SIZE + REGISTERS * 6 / 8;

/// Longest sparse form: Redis's `hll-sparse-max-bytes`.
const SPARSE_SIZE_MAX: usize = HEADER_SIZE + 3_000;

/// Highest register of the sparse form.
const SPARSE_RANK_MAX: u8 = 32;

/// Of the header's last byte: the estimate in it is of before the last change.
const STALE: u8 = 0x80;

/// Why a string was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SketchError {
    /// It has not the form of a HyperLogLog.
    Other,
    /// It has, and its registers do not read.
    Corrupted,
}

impl SketchError {
    /// The error line, without the leading `-`.
    pub const fn text(self) -> &'static str {
        match self {
            SketchError::Other => "WRONGTYPE Key is not a valid HyperLogLog string value.",
            SketchError::Corrupted => "INVALIDOBJ Corrupted HLL object detected",
        }
    }
}

impl From<SketchError> for Fault<'_> {
    fn from(error: SketchError) -> Self {
        Fault::Sketch(error)
    }
}

/// What adding an element asks for: a register, and how high it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    index: usize,
    rank: u8,
}

impl Mark {
    /// What `element` asks for.
    pub fn of(element: &[u8]) -> Mark {
        let hash = hash(element);
        // A one beyond the last bit ends the zeros.
        let rank = (hash >> INDEX_BITS | 1 << RANK_BITS).trailing_zeros() + 1;
        Mark { index: hash as usize % REGISTERS, rank: rank as u8 }
    }
}

/// MurmurHash64A (Appleby) with Redis's seed.
fn hash(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        hash ^= (word ^ word >> SHIFT).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

/// How the registers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Six bits each.
    Dense,
    /// Runs of equal ones.
    Sparse,
}

/// A string that was found to be a sketch.
#[derive(Clone, Copy, Debug)]
pub struct Sketch<'a> {
    form: Form,
    bytes: &'a [u8],
}

impl<'a> Sketch<'a> {
    /// Looks whether a string is a sketch that reads.
    pub fn parse(bytes: &'a [u8]) -> Result<Sketch<'a>, SketchError> {
        let form = match bytes {
            [b'H', b'Y', b'L', b'L', 0, ..] if bytes.len() == DENSE_SIZE => Form::Dense,
            [b'H', b'Y', b'L', b'L', 1, ..] if bytes.len() >= HEADER_SIZE => Form::Sparse,
            _ => return Err(SketchError::Other),
        };
        let sketch = Sketch { form, bytes };
        let count: Option<usize> = match form {
            Form::Dense => Some(REGISTERS),
            Form::Sparse => sketch.runs().map(|run| run.map(|run| run.count)).sum(),
        };
        if count == Some(REGISTERS) { Ok(sketch) } else { Err(SketchError::Corrupted) }
    }

    /// How its registers are written.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// The estimate that stands in the header, if it is not old.
    pub fn noted(&self) -> Option<u64> {
        let noted = u64::from_le_bytes(self.bytes[8..16].try_into().expect("eight bytes"));
        (noted >> 63 == 0).then_some(noted)
    }

    /// The runs of a sparse one; `None` where it ends inside a run.
    fn runs(&self) -> Runs<'a> {
        Runs(&self.bytes[HEADER_SIZE..])
    }

    /// The registers of a dense one, in order.
    fn packed(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.bytes[HEADER_SIZE..].as_chunks::<3>().0.iter().flat_map(|&[a, b, c]| {
            let four = u32::from_le_bytes([a, b, c, 0]);
            [0, 6, 12, 18].map(|shift| (four >> shift) as u8 & 0x3F)
        })
    }

    /// The same sketch after `marks`, if any of them raises a register.
    pub fn marked(&self, marks: impl Iterator<Item = Mark>) -> Option<Vec<u8>> {
        match self.form {
            Form::Dense => {
                let mut raised: Option<Vec<u8>> = None;
                for mark in marks {
                    if dense_rank(raised.as_deref().unwrap_or(self.bytes), mark.index) < mark.rank {
                        set_dense(raised.get_or_insert_with(|| self.bytes.to_vec()), mark);
                    }
                }
                raised.map(|mut bytes| {
                    bytes[HEADER_SIZE - 1] |= STALE;
                    bytes
                })
            }
            Form::Sparse => {
                let mut registers = Registers::new();
                registers.merge(self);
                // Each of them counts, not the first alone.
                let raised = marks.fold(false, |raised, mark| registers.mark(mark) | raised);
                raised.then(|| registers.encode(self.form))
            }
        }
    }
}

/// The byte that a dense register begins in, and at which bit.
const fn dense_place(index: usize) -> (usize, usize) {
    (HEADER_SIZE + index * 6 / 8, index * 6 % 8)
}

fn dense_rank(bytes: &[u8], index: usize) -> u8 {
    let (at, shift) = dense_place(index);
    let second = bytes.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([bytes[at], second]) >> shift) as u8 & 0x3F
}

fn set_dense(bytes: &mut [u8], mark: Mark) {
    let (at, shift) = dense_place(mark.index);
    let (clear, set) = (!(0x3F << shift), u16::from(mark.rank) << shift);
    let [low, high] = set.to_le_bytes();
    let [keep_low, keep_high] = u16::to_le_bytes(clear);
    bytes[at] = bytes[at] & keep_low | low;
    if let Some(second) = bytes.get_mut(at + 1) {
        *second = *second & keep_high | high;
    }
}

/// Equal registers that follow each other.
#[derive(Clone, Copy)]
struct Run {
    rank: u8,
    count: usize,
}

struct Runs<'a>(&'a [u8]);

impl Iterator for Runs<'_> {
    type Item = Option<Run>;

    fn next(&mut self) -> Option<Option<Run>> {
        let (&first, mut rest) = self.0.split_first()?;
        let run = if first & 0x80 != 0 {
            Some(Run { rank: (first >> 2 & 0x1F) + 1, count: usize::from(first & 3) + 1 })
        } else if first & 0x40 == 0 {
            Some(Run { rank: 0, count: usize::from(first) + 1 })
        } else {
            rest.split_off_first().map(|&second| {
                let count = u16::from_be_bytes([first & 0x3F, second]);
                Run { rank: 0, count: usize::from(count) + 1 }
            })
        };
        self.0 = rest;
        Some(run)
    }
}

/// All registers, a byte each.
#[derive(Clone, PartialEq, Eq)]
pub struct Registers(Box<[u8]>);

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registers(about {} elements)", self.estimate())
    }
}

impl Default for Registers {
    fn default() -> Registers {
        Registers::new()
    }
}

impl Registers {
    /// Those of no element.
    pub fn new() -> Registers {
        Registers(vec![0; REGISTERS].into())
    }

    /// Raises them to those of `sketch`.
    pub fn merge(&mut self, sketch: &Sketch<'_>) {
        match sketch.form {
            Form::Dense => self.0.iter_mut().zip(sketch.packed()).for_each(|(register, rank)| {
                *register = rank.max(*register);
            }),
            Form::Sparse => {
                let mut at = 0;
                for run in sketch.runs().flatten() {
                    if run.rank > 0 {
                        self.0[at..at + run.count].iter_mut().for_each(|register| {
                            *register = run.rank.max(*register);
                        });
                    }
                    at += run.count;
                }
            }
        }
    }

    /// Adds an element; whether that raised a register.
    pub fn mark(&mut self, mark: Mark) -> bool {
        let register = &mut self.0[mark.index];
        let raised = *register < mark.rank;
        *register = mark.rank.max(*register);
        raised
    }

    /// About how many different elements were added.
    pub fn estimate(&self) -> u64 {
        // Six bits hold more than any hash asks for; as in Redis, such registers count as nothing.
        let mut counts = [0u32; 64];
        self.0.iter().for_each(|&rank| counts[usize::from(rank)] += 1);
        let all = REGISTERS as f64;
        let highest = f64::from(counts[RANK_MAX as usize]);
        let mut sum = all * tau((all - highest) / all);
        for &count in counts[1..RANK_MAX as usize].iter().rev() {
            sum = (sum + f64::from(count)) * 0.5;
        }
        sum += all * sigma(f64::from(counts[0]) / all);
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        (ALPHA * all * all / sum).round() as u64
    }

    /// The string that holds them: sparse if that is wished and they fit it.
    pub fn encode(&self, wish: Form) -> Vec<u8> {
        let sparse = if wish == Form::Sparse { self.encode_sparse() } else { None };
        sparse.unwrap_or_else(|| self.encode_dense())
    }

    fn encode_dense(&self) -> Vec<u8> {
        let mut out = header(0);
        out.reserve_exact(DENSE_SIZE - HEADER_SIZE);
        for four in self.0.as_chunks::<4>().0 {
            let packed =
                four.iter().rev().fold(0u32, |packed, &rank| packed << 6 | u32::from(rank));
            out.extend_from_slice(&packed.to_le_bytes()[..3]);
        }
        out
    }

    fn encode_sparse(&self) -> Option<Vec<u8>> {
        let mut out = header(1);
        let mut rest = &self.0[..];
        while let Some(&rank) = rest.first() {
            let mut count = same_as_first(rest);
            rest = &rest[count..];
            match rank {
                0 if count <= 64 => out.push(count as u8 - 1),
                0 => out.extend_from_slice(&(0x4000 | (count - 1) as u16).to_be_bytes()),
                1..=SPARSE_RANK_MAX => {
                    while count > 0 {
                        let part = count.min(4);
                        out.push(0x80 | (rank - 1) << 2 | (part - 1) as u8);
                        count -= part;
                    }
                }
                _ => return None,
            }
            if out.len() > SPARSE_SIZE_MAX {
                return None;
            }
        }
        Some(out)
    }
}

/// How many registers, from the first, are as the first is.
fn same_as_first(registers: &[u8]) -> usize {
    let words = registers.as_chunks::<8>().0;
    let same = words.iter().take_while(|word| **word == [registers[0]; 8]).count() * 8;
    let rest = registers[same..].iter().take_while(|rank| **rank == registers[0]);
    same + rest.count()
}

/// A header without an estimate.
fn header(form: u8) -> Vec<u8> {
    let mut out = vec![0; HEADER_SIZE];
    out[..4].copy_from_slice(b"HYLL");
    out[4] = form;
    out[HEADER_SIZE - 1] = STALE;
    out
}

/// Ertl's correction for registers that are zero.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * power;
        power += power;
        if before == sum {
            return sum;
        }
    }
}

/// Ertl's correction for registers that are as high as they can be.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut power, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        power *= 0.5;
        sum -= (1.0 - x).powi(2) * power;
        if before == sum {
            return sum / 3.0;
        }
    }
}
