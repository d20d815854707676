//! Host services: random numbers, tokenizers, streams and the log.

use crate::host::{ask, call, handle, lent_mut, never_lent_mut, tables};
use crate::text::borrow;
use crate::{Buffer, DType, Error, Result, Tensor};
use easytransfer_abi as abi;
use std::ptr::{null, null_mut};

handle! {
    /// A counted random number generator: Philox keyed by (seed, stream) at an offset.
    Rng(et_rng) released by rng, et_host_rng.release
}
never_lent_mut! { Rng(et_rng) }

/// Where a generator stands.
pub use easytransfer_abi::et_rng_state as RngState;

impl Rng {
    /// A generator at offset 0.
    pub fn new(seed: u64, stream: u64) -> Result<Self> {
        let mut out = null_mut();
        call!(tables().rng, et_host_rng.create(seed, stream, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// The present state.
    pub fn state(&self) -> RngState {
        let zero = RngState { seed: 0, stream: 0, offset: 0 };
        ask!(tables().rng, et_host_rng.state(self.as_raw()) or zero)
    }

    /// Sets the state.
    pub fn set_state(&self, state: RngState) {
        ask!(tables().rng, et_host_rng.set_state(self.as_raw(), state) or ());
    }

    /// 64 random bits.
    pub fn bits(&self) -> u64 {
        ask!(tables().rng, et_host_rng.bits(self.as_raw()) or 0)
    }

    /// Uniform numbers in `[low, high)`.
    pub fn uniform(&self, dtype: DType, shape: &[usize], low: f64, high: f64) -> Result<Tensor> {
        let mut out = null_mut();
        call!(
            tables().rng,
            et_host_rng.uniform(
                self.as_raw(),
                dtype as i32,
                shape.as_ptr(),
                shape.len(),
                low,
                high,
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// Normal numbers.
    pub fn normal(
        &self,
        dtype: DType,
        shape: &[usize],
        mean: f64,
        deviation: f64,
    ) -> Result<Tensor> {
        let mut out = null_mut();
        call!(
            tables().rng,
            et_host_rng.normal(
                self.as_raw(),
                dtype as i32,
                shape.as_ptr(),
                shape.len(),
                mean,
                deviation,
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }
}

handle! {
    /// A loaded tokenizer. Cloning takes another reference; all methods may be called from any thread.
    Tokenizer(et_tokenizer) released by tokenizer_table, et_host_tokenizer.release
}
never_lent_mut! { Tokenizer(et_tokenizer) }

impl Clone for Tokenizer {
    fn clone(&self) -> Self {
        let table = tables().tokenizer_table;
        let raw = ask!(table, et_host_tokenizer.retain(self.as_raw()) or null_mut());
        // SAFETY: `retain` answers with an owned reference to a live tokenizer.
        match unsafe { Self::from_raw(raw) } {
            Ok(tokenizer) => tokenizer,
            Err(error) => panic!("a live tokenizer can be retained: {error}"),
        }
    }
}

impl Tokenizer {
    /// Loads from a directory or file; see `et_host_tokenizer.load` for the formats.
    pub fn load(path: &str) -> Result<Self> {
        let mut out = null_mut();
        call!(tables().tokenizer_table, et_host_tokenizer.load(borrow(path), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Makes one from the text of a `tokenizer.json`.
    pub fn from_json(json: &str) -> Result<Self> {
        let mut out = null_mut();
        call!(tables().tokenizer_table, et_host_tokenizer.from_json(borrow(json), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Number of tokens of the vocabulary.
    pub fn vocab_len(&self) -> usize {
        ask!(tables().tokenizer_table, et_host_tokenizer.vocab_len(self.as_raw()) or 0)
    }

    /// Id of a token, if it is in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<i64> {
        let id = ask!(tables().tokenizer_table,
            et_host_tokenizer.token_id(self.as_raw(), borrow(token)) or -1);
        (id >= 0).then_some(id)
    }

    /// Text of a token.
    pub fn token_text(&self, id: i64) -> Result<String> {
        let mut out = null_mut();
        call!(tables().tokenizer_table, et_host_tokenizer.token_text(self.as_raw(), id, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        Ok(unsafe { Buffer::from_raw(out) }?.as_str()?.to_owned())
    }

    /// Encodes a text or a pair with special tokens, cut to `max_len` tokens (0 for no limit).
    pub fn encode(&self, text: &str, pair: Option<&str>, max_len: usize) -> Result<Encoding> {
        self.encode_with(text, pair, max_len, true)
    }

    fn encode_with(
        &self,
        text: &str,
        pair: Option<&str>,
        max_len: usize,
        special: bool,
    ) -> Result<Encoding> {
        let options = abi::et_encode_options {
            struct_size: size_of::<abi::et_encode_options>(),
            max_len,
            add_special_tokens: i32::from(special),
            reserved: 0,
        };
        let pair = pair.map(borrow);
        let mut out = null_mut();
        call!(
            tables().tokenizer_table,
            et_host_tokenizer.encode(
                self.as_raw(),
                borrow(text),
                pair.as_ref().map_or(null(), std::ptr::from_ref),
                &options,
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Encoding::from_raw(out) }
    }

    /// Encodes a text without special tokens and without a limit, to be cut into windows or aligned with words and
    /// then handed to [`Tokenizer::assemble`].
    pub fn pieces(&self, text: &str) -> Result<Encoding> {
        self.encode_with(text, None, 0, false)
    }

    /// The model's input for pieces: with special tokens and segments as [`Tokenizer::encode`] of the texts behind
    /// them has it.
    pub fn assemble(&self, first: &[i64], second: Option<&[i64]>) -> Result<Encoding> {
        let (pair, pair_len) = second.map_or((null(), 0), |second| (second.as_ptr(), second.len()));
        let mut out = null_mut();
        call!(
            tables().tokenizer_table,
            et_host_tokenizer.assemble(
                self.as_raw(),
                first.as_ptr(),
                first.len(),
                pair,
                pair_len,
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Encoding::from_raw(out) }
    }

    /// Number of special tokens that [`Tokenizer::assemble`] adds to one list, or to two.
    pub fn added_len(&self, pair: bool) -> usize {
        ask!(tables().tokenizer_table,
            et_host_tokenizer.added_len(self.as_raw(), i32::from(pair)) or 0)
    }

    /// Turns ids back into text.
    pub fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String> {
        let mut out = null_mut();
        call!(
            tables().tokenizer_table,
            et_host_tokenizer.decode(
                self.as_raw(),
                ids.as_ptr(),
                ids.len(),
                i32::from(skip_special_tokens),
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        Ok(unsafe { Buffer::from_raw(out) }?.as_str()?.to_owned())
    }

    /// Writes the tokenizer's files into an existing directory.
    pub fn save(&self, directory: &str) -> Result<()> {
        call!(tables().tokenizer_table, et_host_tokenizer.save(self.as_raw(), borrow(directory)))
    }
}

handle! {
    /// The result of encoding one text.
    Encoding(et_encoding) released by tokenizer_table, et_host_tokenizer.encoding_release
}
never_lent_mut! { Encoding(et_encoding) }

macro_rules! encoding_slices {
    ($($(#[$meta:meta])* $name:ident = $slot:ident * $factor:literal),* $(,)?) => {
        impl Encoding {$(
            $(#[$meta])*
            pub fn $name(&self) -> &[i64] {
                let data = ask!(tables().tokenizer_table, et_host_tokenizer.$slot(self.as_raw()) or null());
                let len = self.len() * $factor;
                if data.is_null() || len == 0 {
                    return &[];
                }
                // SAFETY: the host keeps that many values alive as long as the encoding.
                unsafe { std::slice::from_raw_parts(data, len) }
            }
        )*}
    };
}
encoding_slices! {
    /// Token ids.
    ids = encoding_ids * 1,
    /// 0 for the text, 1 for the pair.
    segments = encoding_segments * 1,
    /// 1 for special tokens.
    special = encoding_special * 1,
    /// Begin and end of each token, byte offsets into its text.
    offsets = encoding_offsets * 2,
    /// Number of the word of its text that each token belongs to, -1 for special tokens; of [`Tokenizer::assemble`],
    /// places in the lists.
    words = encoding_words * 1,
}

impl Encoding {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        ask!(tables().tokenizer_table, et_host_tokenizer.encoding_len(self.as_raw()) or 0)
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether tokens were cut off.
    pub fn is_truncated(&self) -> bool {
        ask!(tables().tokenizer_table, et_host_tokenizer.encoding_truncated(self.as_raw()) or 0)
            != 0
    }
}

handle! {
    /// A stream of bytes in memory, or one that belongs to a checkpoint.
    Stream(et_stream) released by stream, et_host_stream.release
}
lent_mut! { Stream(et_stream) }

impl Stream {
    /// An empty stream for writing.
    pub fn writer() -> Result<Self> {
        let mut out = null_mut();
        call!(tables().stream, et_host_stream.memory_new(null(), 0, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// A stream that reads a copy of `bytes`.
    pub fn reader(bytes: &[u8]) -> Result<Self> {
        let mut out = null_mut();
        // A dangling pointer of an empty slice is not NULL, so an empty reader stays a reader.
        call!(
            tables().stream,
            et_host_stream.memory_new(bytes.as_ptr().cast(), bytes.len(), &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        call!(
            tables().stream,
            et_host_stream.write(self.as_raw(), bytes.as_ptr().cast(), bytes.len())
        )
    }

    /// Reads exactly `bytes.len()` bytes.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        call!(
            tables().stream,
            et_host_stream.read(self.as_raw(), bytes.as_mut_ptr().cast(), bytes.len())
        )
    }

    /// Appends a number.
    pub fn write_u64(&mut self, value: u64) -> Result<()> {
        self.write(&value.to_le_bytes())
    }

    /// Reads a number.
    pub fn read_u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Bytes left to read.
    pub fn remaining(&self) -> usize {
        ask!(tables().stream, et_host_stream.remaining(self.as_raw()) or 0)
    }

    /// Everything that was written so far.
    pub fn bytes(&self) -> Result<Buffer> {
        let mut out = null_mut();
        call!(tables().stream, et_host_stream.bytes(self.as_raw(), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Buffer::from_raw(out) }
    }

    /// Writes all tensors of a map: names, and bytes of single precision values.
    pub fn write_map(&mut self, map: &crate::Map) -> Result<()> {
        let names = map.names();
        self.write_u64(names.len() as u64)?;
        for name in names {
            let tensor = map.get(&name)?.cast(DType::F32)?;
            let len = tensor.len();
            let flat = tensor.reshape(&[len])?;
            self.write_u64(name.len() as u64)?;
            self.write(name.as_bytes())?;
            self.write_u64(len as u64)?;
            // The state of an optimizer is as large as the model, so it is not copied as a whole.
            for start in (0..len).step_by(WRITTEN_AT_ONCE) {
                let part = flat.narrow(0, start, WRITTEN_AT_ONCE.min(len - start))?;
                let values = part.to_vec::<f32>()?;
                let mut bytes = vec![[0u8; 4]; values.len()];
                bytes.iter_mut().zip(&values).for_each(|(to, value)| *to = value.to_le_bytes());
                self.write(bytes.as_flattened())?;
            }
        }
        Ok(())
    }

    /// Reads what [`Stream::write_map`] wrote into fresh tensors with the shapes of `map`. Errors when names or sizes
    /// differ.
    pub fn read_map(&mut self, map: &mut crate::Map) -> Result<()> {
        let names = map.names();
        let count = self.read_u64()? as usize;
        if count != names.len() {
            return Err(Error::bad_input(format!(
                "state: expected {} tensors, found {count}",
                names.len()
            )));
        }
        for name in names {
            let name_len = self.read_u64()? as usize;
            if name_len != name.len() {
                return Err(Error::bad_input(format!("state: expected tensor {name}")));
            }
            let mut found = vec![0; name_len];
            self.read(&mut found)?;
            if found != name.as_bytes() {
                return Err(Error::bad_input(format!(
                    "state: expected tensor {name}, found {}",
                    String::from_utf8_lossy(&found)
                )));
            }
            let tensor = map.get(&name)?;
            let len = self.read_u64()? as usize;
            if len != tensor.len() {
                return Err(Error::bad_input(format!(
                    "state: tensor {name}: expected {} values, found {len}",
                    tensor.len()
                )));
            }
            let mut values = Vec::with_capacity(len);
            let mut bytes = vec![[0u8; 4]; WRITTEN_AT_ONCE.min(len)];
            while values.len() < len {
                bytes.truncate(len - values.len());
                self.read(bytes.as_flattened_mut())?;
                values.extend(bytes.iter().map(|b| f32::from_le_bytes(*b)));
            }
            map.put(&name, &Tensor::from_slice(&values, tensor.shape())?)?;
        }
        Ok(())
    }
}

/// Values of a map's tensors that are copied at once.
const WRITTEN_AT_ONCE: usize = 1 << 18;

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum LogLevel {
    /// Something failed.
    Error = abi::ET_LOG_ERROR,
    /// Something is probably not what the user wants.
    Warn = abi::ET_LOG_WARN,
    /// Progress.
    Info = abi::ET_LOG_INFO,
    /// Detail.
    Debug = abi::ET_LOG_DEBUG,
}

/// Writes one message to the host's log; `target` names the writer.
pub fn log(level: LogLevel, target: &str, message: &str) {
    if let Some(table) = crate::host::try_host().and_then(|_| tables().log) {
        ask!(table, et_host_log.write(level as i32, borrow(target), borrow(message)) or ());
    }
}
