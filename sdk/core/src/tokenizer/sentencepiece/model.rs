//! The model file of SentencePiece: the few fields of its protocol buffer (`sentencepiece_model.proto`) that encoding
//! needs. `FIELDS` lists them, beside those that change nothing; any other field is warned about by its number.

use crate::error::{Result, fail};

/// Bytes of a piece. Trainers make pieces of 16 characters; the search takes time by the longest.
pub const LONGEST_PIECE: usize = 1024;

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Found in text.
    Normal,
    /// Stands for what is not in the vocabulary.
    Unknown,
    /// Never found in text, added by models.
    Control,
    /// Always one piece.
    UserDefined,
    /// One byte.
    Byte,
    /// Not used.
    Unused,
}

/// One entry of the vocabulary; its place is its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The text, with U+2581 for spaces.
    pub text: String,
    /// Logarithm of its probability, or minus its rank for BPE.
    pub score: f32,
    /// What it is for.
    pub kind: Kind,
}

/// How text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The most probable pieces (Kudo 2018).
    Unigram,
    /// Merges by rank (Sennrich et al. 2016).
    Bpe,
    /// Words are pieces.
    Word,
    /// Characters are pieces.
    Char,
}

/// A parsed model file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The vocabulary.
    pub pieces: Vec<Piece>,
    /// How text is cut.
    pub algorithm: Algorithm,
    /// Unknown characters become bytes.
    pub byte_fallback: bool,
    /// Spaces belong to the word before them.
    pub space_is_suffix: bool,
    /// Rules of normalisation, in SentencePiece's own form; may be empty.
    pub rules: Vec<u8>,
    /// A space is put before the text.
    pub dummy_prefix: bool,
    /// Runs of spaces become one, those at the ends vanish.
    pub squeeze_spaces: bool,
    /// Spaces become U+2581.
    pub escape_spaces: bool,
    /// Fields that this reader does not know, as "message.number".
    pub unknown: Vec<String>,
}

/// The fields of each message: those that are honoured, and those that change no token.
pub const FIELDS: [(&str, &[u64], &[u64]); 4] = [
    // Self tests, and the normalisation of decoded text.
    ("model", &[1, 2, 3], &[4, 5]),
    ("piece", &[1, 2, 3], &[]),
    // How the model was trained, and names of pieces that the pieces say themselves.
    (
        "trainer_spec",
        &[3, 24, 35],
        &[
            1, 2, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 30,
            31, 32, 33, 34, 36, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54,
        ],
    ),
    // The name of the rules and the table that they were compiled from.
    ("normalizer_spec", &[2, 3, 4, 5], &[1, 6]),
];

/// The value of one field.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A 32 bit word, little-endian.
    Word(u32),
    /// A 64 bit word; no field that is read has this form.
    Long,
}

/// Walks over the fields of a message.
struct Fields<'a> {
    bytes: &'a [u8],
    /// What is read, for error messages.
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(len).ok().and_then(|len| self.bytes.split_at_checked(len));
        let Some((head, tail)) = split else {
            fail!(
                ET_ERR_BAD_INPUT,
                "the SentencePiece model is cut off or damaged: {} wants {len} bytes, {} are left",
                self.what,
                self.bytes.len()
            );
        };
        self.bytes = tail;
        Ok(head)
    }

    /// A number in groups of seven bits, lowest first.
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        fail!(
            ET_ERR_BAD_INPUT,
            "the SentencePiece model is damaged: a number of {} does not end",
            self.what
        )
    }

    /// The next field's number and value.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Long
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let word = self.take(4)?;
                Field::Word(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            }
            other => fail!(
                ET_ERR_BAD_INPUT,
                "the file is no SentencePiece model: {} has a field of form {other}",
                self.what
            ),
        };
        Ok(Some((key >> 3, value)))
    }
}

impl Model {
    /// Parses a model file. Errors: `BAD_INPUT`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            space_is_suffix: false,
            rules: Vec::new(),
            dummy_prefix: true,
            squeeze_spaces: true,
            escape_spaces: true,
            unknown: Vec::new(),
        };
        let mut fields = Fields::new(bytes, "the model");
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Field::Bytes(piece)) => {
                    let index = model.pieces.len();
                    let piece = model.parse_piece(piece);
                    model.pieces.push(piece.map_err(|e| e.context(format!("piece {index}")))?);
                }
                (2, Field::Bytes(trainer)) => model.parse_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.parse_normalizer(normalizer)?,
                _ => model.note("model", number),
            }
        }
        if model.pieces.is_empty() {
            fail!(ET_ERR_BAD_INPUT, "the file is no SentencePiece model: it has no pieces");
        }
        Ok(model)
    }

    fn parse_trainer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields::new(bytes, "the trainer's part");
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (3, Field::Number(1)) => self.algorithm = Algorithm::Unigram,
                (3, Field::Number(2)) => self.algorithm = Algorithm::Bpe,
                (3, Field::Number(3)) => self.algorithm = Algorithm::Word,
                (3, Field::Number(4)) => self.algorithm = Algorithm::Char,
                (3, Field::Number(other)) => fail!(
                    ET_ERR_UNIMPLEMENTED,
                    "SentencePiece models of type {other} are not supported, expected Unigram (1), BPE (2), word (3) or char (4)"
                ),
                (24, Field::Number(on)) => self.space_is_suffix = on != 0,
                (35, Field::Number(on)) => self.byte_fallback = on != 0,
                _ => self.note("trainer_spec", number),
            }
        }
        Ok(())
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields::new(bytes, "the normalizer's part");
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (2, Field::Bytes(rules)) => self.rules = rules.to_vec(),
                (3, Field::Number(on)) => self.dummy_prefix = on != 0,
                (4, Field::Number(on)) => self.squeeze_spaces = on != 0,
                (5, Field::Number(on)) => self.escape_spaces = on != 0,
                _ => self.note("normalizer_spec", number),
            }
        }
        Ok(())
    }

    fn parse_piece(&mut self, bytes: &[u8]) -> Result<Piece> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
        let mut fields = Fields::new(bytes, "the piece");
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Field::Bytes(text)) => match std::str::from_utf8(text) {
                    Ok(text) => piece.text = text.into(),
                    Err(error) => fail!(ET_ERR_BAD_INPUT, "its text is not UTF-8: {error}"),
                },
                (2, Field::Word(bits)) => piece.score = f32::from_bits(bits),
                (3, Field::Number(kind)) => {
                    piece.kind = match kind {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        other => fail!(ET_ERR_BAD_INPUT, "its type is {other}, expected 1 to 6"),
                    }
                }
                _ => self.note("piece", number),
            }
        }
        // Empty pieces and scores that are not numbers would keep the search for the best pieces from ending.
        if piece.text.is_empty() {
            fail!(ET_ERR_BAD_INPUT, "it has no text");
        }
        if piece.text.len() > LONGEST_PIECE {
            fail!(
                ET_ERR_BAD_INPUT,
                "its text has {} bytes, more than {LONGEST_PIECE}",
                piece.text.len()
            );
        }
        if !piece.score.is_finite() {
            fail!(ET_ERR_BAD_INPUT, "{:?} has the score {}", piece.text, piece.score);
        }
        Ok(piece)
    }

    /// Remembers a field that is in no list.
    fn note(&mut self, message: &str, number: u64) {
        let known = FIELDS.iter().any(|(name, honoured, without_effect)| {
            *name == message && (honoured.contains(&number) || without_effect.contains(&number))
        });
        // A damaged file could name millions.
        if !known && self.unknown.len() < 8 {
            let name = format!("{message}.{number}");
            if !self.unknown.contains(&name) {
                self.unknown.push(name);
            }
        }
    }
}
