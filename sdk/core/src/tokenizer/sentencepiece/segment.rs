//! How SentencePiece cuts normalised text into pieces: Unigram as in `unigram_model.cc`, BPE as in `bpe_model.cc`,
//! words and characters. Where scores are equal, sums are rounded or a piece is unused, these decide as the library
//! does.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::model::{Algorithm, Kind, Model};
use super::normalizer::{Normalizer, char_len};
use super::prefixes::Prefixes;

/// What an unknown character costs below the worst piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Beyond this a sum of scores begins anew, so that long texts do not round it away.
const SCORE_RESET: f32 = 100_000.0;

/// How deep unused pieces of BPE are taken apart.
const DEEPEST: usize = 100;

/// Added symbols beat what other pieces make of their text.
fn user_defined_score(len: usize) -> f32 {
    (0.1 * (len as f64 - 1.0)) as f32
}

/// The pieces of a model.
pub struct Segmenter {
    algorithm: Algorithm,
    kinds: Vec<Kind>,
    scores: Vec<f32>,
    /// Pieces that text is cut into; control pieces, bytes and the unknown piece are never found in it.
    pieces: Prefixes,
    unknown: u32,
    lowest: f32,
}

impl Segmenter {
    /// That of a model whose unknown piece is `unknown`.
    pub fn new(model: &Model, unknown: u32) -> Self {
        let in_text = |kind| matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
        let pieces = model.pieces.iter().zip(0..).filter(|(piece, _)| in_text(piece.kind));
        let pieces = Prefixes::new(pieces.map(|(piece, id)| (piece.text.as_bytes(), id)));
        let normal = model.pieces.iter().filter(|piece| piece.kind == Kind::Normal);
        let normal = normal.map(|piece| piece.score);
        Self {
            algorithm: model.algorithm,
            kinds: model.pieces.iter().map(|piece| piece.kind).collect(),
            scores: model.pieces.iter().map(|piece| piece.score).collect(),
            pieces,
            unknown,
            lowest: normal.fold(f32::MAX, f32::min),
        }
    }

    /// The texts of all pieces that text is cut into.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.pieces.texts()
    }

    /// Lowers the score of a piece without touching that of unknown characters.
    pub fn lower(&mut self, id: u32, by: f32) {
        self.scores[id as usize] -= by;
    }

    /// The piece that is a text; unused ones are none.
    fn id(&self, text: &[u8]) -> u32 {
        let used = |id: &u32| self.kinds[*id as usize] != Kind::Unused;
        self.pieces.get(text).filter(used).unwrap_or(self.unknown)
    }

    /// Appends length and id of the pieces of `text`. `score` is that of all text before; scores are sums, so what is
    /// cut in parts must be summed on to round alike.
    pub fn cut(
        &self,
        text: &[u8],
        normalizer: &Normalizer,
        score: &mut f32,
        out: &mut Vec<(usize, u32)>,
    ) {
        match self.algorithm {
            Algorithm::Unigram => self.unigram(text, score, out),
            Algorithm::Bpe => self.bpe(text, normalizer, out),
            Algorithm::Char => {
                let mut rest = text;
                while !rest.is_empty() {
                    let (len, _) = normalizer.symbol(rest);
                    out.push((len, self.id(&rest[..len])));
                    rest = &rest[len..];
                }
            }
            Algorithm::Word => self.words(text, out),
        }
    }

    /// A word begins at every U+2581.
    fn words(&self, text: &[u8], out: &mut Vec<(usize, u32)>) {
        let space = "\u{2581}".as_bytes();
        let mut begin = 0;
        let mut at = 0;
        while at < text.len() {
            at += char_len(&text[at..]);
            if at == text.len() || text[at..].starts_with(space) {
                out.push((at - begin, self.id(&text[begin..at])));
                begin = at;
            }
        }
    }

    fn unigram(&self, text: &[u8], score: &mut f32, out: &mut Vec<(usize, u32)>) {
        /// The best way to a place.
        #[derive(Clone, Copy)]
        struct Best {
            id: u32,
            score: f32,
            begin: usize,
        }
        const NONE: usize = usize::MAX;
        let mut best = vec![Best { id: 0, score: 0.0, begin: NONE }; text.len() + 1];
        best[0].score = *score;
        let unknown_score = self.lowest - UNKNOWN_PENALTY;
        let mut at = 0;
        let mut frontier = 0;
        while at < text.len() {
            let mut here = best[at].score;
            if here.abs() > SCORE_RESET {
                for (index, best) in best[at..=frontier.max(at)].iter_mut().enumerate() {
                    if index == 0 || best.begin != NONE {
                        best.score -= here;
                    }
                }
                here = 0.0;
            }
            let one = char_len(&text[at..]);
            let mut single = false;
            self.pieces.visit(&text[at..], |len, id| {
                let score = match self.kinds[id as usize] {
                    Kind::Unused => return,
                    Kind::UserDefined => user_defined_score(len),
                    _ => self.scores[id as usize],
                };
                let score = score + here;
                frontier = frontier.max(at + len);
                let target = &mut best[at + len];
                if target.begin == NONE || score > target.score {
                    *target = Best { id, score, begin: at };
                }
                single |= len == one;
            });
            if !single {
                let score = unknown_score + here;
                frontier = frontier.max(at + one);
                let target = &mut best[at + one];
                if target.begin == NONE || score > target.score {
                    *target = Best { id: self.unknown, score, begin: at };
                }
            }
            at += one;
        }
        *score = best[text.len()].score;
        let from = out.len();
        let mut end = text.len();
        while end > 0 {
            let Best { id, begin, .. } = best[end];
            out.push((end - begin, id));
            end = begin;
        }
        out[from..].reverse();
    }

    fn bpe(&self, text: &[u8], normalizer: &Normalizer, out: &mut Vec<(usize, u32)>) {
        let mut merging = Merging {
            pieces: self,
            text,
            symbols: Vec::new(),
            agenda: BinaryHeap::new(),
            unused: HashMap::new(),
        };
        let mut begin = 0;
        while begin < text.len() {
            let (len, frozen) = normalizer.symbol(&text[begin..]);
            let index = merging.symbols.len();
            let next = if begin + len == text.len() { NOWHERE } else { index + 1 };
            let prev = index.checked_sub(1).unwrap_or(NOWHERE);
            merging.symbols.push(Symbol { begin, len, prev, next, frozen });
            begin += len;
        }
        for right in 1..merging.symbols.len() {
            merging.propose(right - 1, right);
        }
        while let Some(pair) = merging.agenda.pop() {
            let (left, right) = (merging.symbols[pair.left], merging.symbols[pair.right]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.size {
                continue;
            }
            merging.symbols[pair.left].len = pair.size;
            merging.symbols[pair.left].next = right.next;
            if right.next != NOWHERE {
                merging.symbols[right.next].prev = pair.left;
            }
            merging.symbols[pair.right].len = 0;
            merging.propose(left.prev, pair.left);
            merging.propose(pair.left, right.next);
        }
        let mut at = if text.is_empty() { NOWHERE } else { 0 };
        while at != NOWHERE {
            let symbol = merging.symbols[at];
            merging.resolve(symbol.begin, symbol.len, 0, out);
            at = symbol.next;
        }
    }
}

const NOWHERE: usize = usize::MAX;

/// A part of the text that is one piece so far; empty once it went into the one before.
#[derive(Clone, Copy)]
struct Symbol {
    begin: usize,
    len: usize,
    prev: usize,
    next: usize,
    frozen: bool,
}

/// Two neighbours that a piece joins.
struct Pair {
    left: usize,
    right: usize,
    score: f32,
    size: usize,
}

impl Ord for Pair {
    /// The best score first, of equal ones the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// A text whose symbols are merged.
struct Merging<'a> {
    pieces: &'a Segmenter,
    text: &'a [u8],
    symbols: Vec<Symbol>,
    agenda: BinaryHeap<Pair>,
    /// Lengths of the parts of unused pieces, which stand only between smaller and larger ones.
    unused: HashMap<&'a [u8], (usize, usize)>,
}

impl Merging<'_> {
    fn propose(&mut self, left: usize, right: usize) {
        if left == NOWHERE || right == NOWHERE {
            return;
        }
        let (a, b) = (self.symbols[left], self.symbols[right]);
        if a.frozen || b.frozen {
            return;
        }
        let size = a.len + b.len;
        let text = &self.text[a.begin..a.begin + size];
        let Some(id) = self.pieces.pieces.get(text) else { return };
        self.agenda.push(Pair { left, right, score: self.pieces.scores[id as usize], size });
        if self.pieces.kinds[id as usize] == Kind::Unused {
            self.unused.insert(text, (a.len, b.len));
        }
    }

    /// Appends a symbol; an unused one as the parts that it was merged from.
    fn resolve(&self, begin: usize, len: usize, depth: usize, out: &mut Vec<(usize, u32)>) {
        let text = &self.text[begin..begin + len];
        let id = self.pieces.pieces.get(text).unwrap_or(self.pieces.unknown);
        let unused = self.pieces.kinds[id as usize] == Kind::Unused;
        match self.unused.get(text) {
            Some(&(left, right)) if unused && depth <= DEEPEST => {
                self.resolve(begin, left, depth + 1, out);
                self.resolve(begin + left, right, depth + 1, out);
            }
            None if unused && depth <= DEEPEST => out.push((len, self.pieces.unknown)),
            _ => out.push((len, id)),
        }
    }
}
