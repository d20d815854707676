//! Things that carry data across the boundary: buffers, maps of tensors, rows, streams, configuration, tokenizers.

use crate::{et_error, et_str, et_tensor};
use core::ffi::c_void;

/// Bytes owned by the host, possibly a mapped file.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_buffer {
    _opaque: [u8; 0],
}
/// Named tensors in insertion order: a batch, the outputs of a model, the state of an optimizer.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_map {
    _opaque: [u8; 0],
}
/// The features of one record before batching.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_row {
    _opaque: [u8; 0],
}
/// The rows that the features of one record become.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_rows {
    _opaque: [u8; 0],
}
/// A byte stream of a checkpoint.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_stream {
    _opaque: [u8; 0],
}
/// A parsed JSON document.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_config {
    _opaque: [u8; 0],
}
/// A loaded tokenizer.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_tokenizer {
    _opaque: [u8; 0],
}
/// The result of encoding one text.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_encoding {
    _opaque: [u8; 0],
}

/// `et.data/1`: buffers, maps and rows.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_data {
    /// Bytes filled by the host.
    pub struct_size: usize,

    /// Copies `size` bytes into a new buffer. [any-thread] since 0.1
    pub buffer_new: Option<
        unsafe extern "C" fn(
            data: *const c_void,
            size: usize,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// The bytes of a regular file, which stay as they are whatever becomes of the file: it is read, not mapped.
    /// Errors: NOT_FOUND, IO. [any-thread] since 0.1
    pub buffer_map_file:
        Option<unsafe extern "C" fn(path: et_str, out: *mut *mut et_buffer) -> *mut et_error>,
    /// First byte, valid while the buffer lives; NULL when it is empty. [any-thread] since 0.1
    pub buffer_data: Option<unsafe extern "C" fn(buffer: *const et_buffer) -> *const c_void>,
    /// Size in bytes. [any-thread] since 0.1
    pub buffer_size: Option<unsafe extern "C" fn(buffer: *const et_buffer) -> usize>,
    /// Gives a buffer back. Accepts NULL. [any-thread] since 0.1
    pub buffer_release: Option<unsafe extern "C" fn(buffer: *mut et_buffer)>,

    /// Makes an empty map. [any-thread] since 0.1
    pub map_new: Option<unsafe extern "C" fn(out: *mut *mut et_map) -> *mut et_error>,
    /// Gives a map back with the references it holds. Accepts NULL. [any-thread] since 0.1
    pub map_release: Option<unsafe extern "C" fn(map: *mut et_map)>,
    /// Number of entries. [one-at-a-time] since 0.1
    pub map_len: Option<unsafe extern "C" fn(map: *const et_map) -> usize>,
    /// Name of entry `index` in insertion order, valid until the map changes; empty past the end.
    /// [one-at-a-time] since 0.1
    pub map_name: Option<unsafe extern "C" fn(map: *const et_map, index: usize) -> et_str>,
    /// An owned reference to the tensor of that name. Errors: NOT_FOUND, naming the entries that exist.
    /// [one-at-a-time] since 0.1
    pub map_get: Option<
        unsafe extern "C" fn(
            map: *const et_map,
            name: et_str,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// 1 if there is an entry of that name, else 0. [one-at-a-time] since 0.1
    pub map_has: Option<unsafe extern "C" fn(map: *const et_map, name: et_str) -> i32>,
    /// Adds or replaces an entry; the map takes a reference of its own. [one-at-a-time] since 0.1
    pub map_put: Option<
        unsafe extern "C" fn(
            map: *mut et_map,
            name: et_str,
            tensor: *const et_tensor,
        ) -> *mut et_error,
    >,
    /// Removes an entry if it is there. [one-at-a-time] since 0.1
    pub map_remove: Option<unsafe extern "C" fn(map: *mut et_map, name: et_str)>,

    /// Makes an empty row. [any-thread] since 0.1
    pub row_new: Option<unsafe extern "C" fn(out: *mut *mut et_row) -> *mut et_error>,
    /// Gives a row back. Accepts NULL. [any-thread] since 0.1
    pub row_release: Option<unsafe extern "C" fn(row: *mut et_row)>,
    /// Adds a field with one value per token, for instance "ids" or "segments". All token fields of one name space
    /// (the text before the last '/' of the name) have the same length; the values are copied. Errors: SHAPE,
    /// ALREADY_EXISTS. [one-at-a-time] since 0.1
    pub row_put_tokens: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            name: et_str,
            values: *const i64,
            len: usize,
        ) -> *mut et_error,
    >,
    /// Adds a field of `len` integers per row, for instance "labels"; the values are copied. Batches have shape [B]
    /// when `len` is 1, else [B, len]; every row of a batch must agree. [one-at-a-time] since 0.1
    pub row_put_i64: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            name: et_str,
            values: *const i64,
            len: usize,
        ) -> *mut et_error,
    >,
    /// Adds a field of `len` single precision numbers per row; otherwise as `row_put_i64`. [one-at-a-time] since 0.1
    pub row_put_f32: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            name: et_str,
            values: *const f32,
            len: usize,
        ) -> *mut et_error,
    >,
    /// Number of tokens of the row: the sum over its name spaces. [one-at-a-time] since 0.2
    pub row_tokens_len: Option<unsafe extern "C" fn(row: *const et_row) -> usize>,
    /// Copies every field of `source` into `row` under `prefix` + name. Errors: ALREADY_EXISTS. [one-at-a-time] since
    /// 0.1
    pub row_merge: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            prefix: et_str,
            source: *const et_row,
        ) -> *mut et_error,
    >,
    /// Collates rows into a batch without padding. Token fields are concatenated to [T]; each name space with token
    /// fields also gets "starts" [B+1] (cumulative lengths) and "positions" [T] (0, 1, ... within each run) unless a
    /// field of that name exists. All integers are I64. Errors: SHAPE, naming the field and the row. [any-thread]
    /// since 0.1
    pub batch_from_rows: Option<
        unsafe extern "C" fn(
            rows: *const *const et_row,
            rows_len: usize,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,

    /// Makes an empty list of rows. [any-thread] since 0.2
    pub rows_new: Option<unsafe extern "C" fn(out: *mut *mut et_rows) -> *mut et_error>,
    /// Gives a list back with its rows. Accepts NULL. [any-thread] since 0.2
    pub rows_release: Option<unsafe extern "C" fn(rows: *mut et_rows)>,
    /// Adds an empty row to the list; it is borrowed and lives as long as the list. [one-at-a-time] since 0.2
    pub rows_add:
        Option<unsafe extern "C" fn(rows: *mut et_rows, out: *mut *mut et_row) -> *mut et_error>,
    /// Number of rows. [one-at-a-time] since 0.2
    pub rows_len: Option<unsafe extern "C" fn(rows: *const et_rows) -> usize>,
    /// An owned reference to row `index`. Errors: NOT_FOUND. [one-at-a-time] since 0.2
    pub rows_get: Option<
        unsafe extern "C" fn(
            rows: *const et_rows,
            index: usize,
            out: *mut *mut et_row,
        ) -> *mut et_error,
    >,
}

/// `et.stream/1`: bytes of a checkpoint. Streams given to `state_save` and `state_load` belong to the caller.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_stream {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Appends `size` bytes. Errors: IO, FAILED_PRECONDITION on a stream opened for reading. [one-at-a-time] since 0.1
    pub write: Option<
        unsafe extern "C" fn(
            stream: *mut et_stream,
            data: *const c_void,
            size: usize,
        ) -> *mut et_error,
    >,
    /// Reads exactly `size` bytes. Errors: BAD_INPUT when fewer are left, saying how many. [one-at-a-time] since 0.1
    pub read: Option<
        unsafe extern "C" fn(
            stream: *mut et_stream,
            data: *mut c_void,
            size: usize,
        ) -> *mut et_error,
    >,
    /// Bytes left to read. [one-at-a-time] since 0.1
    pub remaining: Option<unsafe extern "C" fn(stream: *const et_stream) -> usize>,
    /// Makes a stream in memory: empty and for writing when `data` is NULL, else for reading a copy of `data`.
    /// [any-thread] since 0.1
    pub memory_new: Option<
        unsafe extern "C" fn(
            data: *const c_void,
            size: usize,
            out: *mut *mut et_stream,
        ) -> *mut et_error,
    >,
    /// Everything that was written so far. [one-at-a-time] since 0.1
    pub bytes: Option<
        unsafe extern "C" fn(stream: *const et_stream, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Gives a stream back. Accepts NULL. [any-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(stream: *mut et_stream)>,
}

/// `et.config/1`: reading JSON without a JSON library. Keys are dotted paths, for instance "optimizer.lr".
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_config {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Parses JSON text. Errors: BAD_INPUT with line and column. [any-thread] since 0.1
    pub parse:
        Option<unsafe extern "C" fn(json: et_str, out: *mut *mut et_config) -> *mut et_error>,
    /// Gives a document back. Accepts NULL. [any-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(config: *mut et_config)>,
    /// 1 if the key exists and is not null, else 0. [any-thread] since 0.1
    pub has: Option<unsafe extern "C" fn(config: *const et_config, key: et_str) -> i32>,
    /// A number. Errors: NOT_FOUND, BAD_INPUT naming the key and the type found (so for the next three). [any-thread]
    /// since 0.1
    pub f64_at: Option<
        unsafe extern "C" fn(config: *const et_config, key: et_str, out: *mut f64) -> *mut et_error,
    >,
    /// An integer. [any-thread] since 0.1
    pub i64_at: Option<
        unsafe extern "C" fn(config: *const et_config, key: et_str, out: *mut i64) -> *mut et_error,
    >,
    /// A boolean as 0 or 1. [any-thread] since 0.1
    pub bool_at: Option<
        unsafe extern "C" fn(config: *const et_config, key: et_str, out: *mut i32) -> *mut et_error,
    >,
    /// A string, valid while the document lives. [any-thread] since 0.1
    pub str_at: Option<
        unsafe extern "C" fn(
            config: *const et_config,
            key: et_str,
            out: *mut et_str,
        ) -> *mut et_error,
    >,
    /// Length of an array or object. [any-thread] since 0.1
    pub len_at: Option<
        unsafe extern "C" fn(
            config: *const et_config,
            key: et_str,
            out: *mut usize,
        ) -> *mut et_error,
    >,
}

/// How to encode a text.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_encode_options {
    /// Bytes filled by the caller.
    pub struct_size: usize,
    /// Longest result in tokens including special tokens; 0 for no limit. Pairs lose tokens from the longer side.
    pub max_len: usize,
    /// 1 to add the special tokens of the model, 0 for none.
    pub add_special_tokens: i32,
    /// Must be 0.
    pub reserved: i32,
}

/// `et.tokenizer/1`: the host's tokenizers.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_tokenizer {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Loads from a directory or a file: `tokenizer.json`, `vocab.txt`, SentencePiece `.model`, or `vocab.json` with
    /// `merges.txt`. Padding and truncation that a file switches on are switched off. Errors: NOT_FOUND naming the
    /// files looked for, BAD_INPUT. [any-thread] since 0.1
    pub load:
        Option<unsafe extern "C" fn(path: et_str, out: *mut *mut et_tokenizer) -> *mut et_error>,
    /// Another reference to the same tokenizer. [any-thread] since 0.1
    pub retain: Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer) -> *mut et_tokenizer>,
    /// Gives a tokenizer back. Accepts NULL. [any-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(tokenizer: *mut et_tokenizer)>,
    /// Number of tokens of the vocabulary, added tokens included. [any-thread] since 0.1
    pub vocab_len: Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer) -> usize>,
    /// Id of a token, -1 if it is not in the vocabulary. [any-thread] since 0.1
    pub token_id:
        Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer, token: et_str) -> i64>,
    /// Text of a token. Errors: NOT_FOUND. [any-thread] since 0.1
    pub token_text: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            id: i64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// Encodes a text, or a pair when `pair` is not NULL. `options` NULL means no limit with special tokens.
    /// [any-thread] since 0.1
    pub encode: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            text: et_str,
            pair: *const et_str,
            options: *const et_encode_options,
            out: *mut *mut et_encoding,
        ) -> *mut et_error,
    >,
    /// Turns ids back into text. [any-thread] since 0.1
    pub decode: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            ids: *const i64,
            len: usize,
            skip_special_tokens: i32,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// Writes the tokenizer's files into an existing directory, so that `load` and Hugging Face can read them.
    /// [any-thread] since 0.1
    pub save: Option<
        unsafe extern "C" fn(tokenizer: *const et_tokenizer, directory: et_str) -> *mut et_error,
    >,
    /// Number of tokens. [any-thread] since 0.1
    pub encoding_len: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> usize>,
    /// Token ids, `encoding_len` of them, valid while the encoding lives (so for the next three). [any-thread] since
    /// 0.1
    pub encoding_ids: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    /// Segment of each token: 0 for the text, 1 for the pair. [any-thread] since 0.1
    pub encoding_segments: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    /// 1 for special tokens, else 0. [any-thread] since 0.1
    pub encoding_special: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    /// Begin and end of each token as byte offsets into its text, 2 * `encoding_len` values. [any-thread] since 0.1
    pub encoding_offsets: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    /// 1 if tokens were cut off by `max_len`, else 0. [any-thread] since 0.1
    pub encoding_truncated: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> i32>,
    /// Gives an encoding back. Accepts NULL. [any-thread] since 0.1
    pub encoding_release: Option<unsafe extern "C" fn(encoding: *mut et_encoding)>,
    /// Number of the word of its text that each token belongs to, counted from 0 (words as the tokenizer's
    /// pre-tokenizer cuts them); -1 for special tokens. `encoding_len` values, valid while the encoding lives.
    /// [any-thread] since 0.2
    pub encoding_words: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    /// Makes a model's input of one list of ids, or of two when `second` is not NULL: with special tokens and
    /// segments, as `encode` of the texts behind them would. Nothing is cut, and offsets are 0. `encoding_words` of
    /// the result tells the lists' ids from special tokens: places in their list. [any-thread] since 0.2
    pub assemble: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            first: *const i64,
            first_len: usize,
            second: *const i64,
            second_len: usize,
            out: *mut *mut et_encoding,
        ) -> *mut et_error,
    >,
    /// Number of special tokens that `assemble` adds: to one list, or with `pair` 1 to two. [any-thread] since 0.2
    pub added_len: Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer, pair: i32) -> usize>,
    /// Makes a tokenizer from the text of a `tokenizer.json`. An app that learns a vocabulary of words cuts its texts
    /// by one of an empty vocabulary, to the same words as the tokenizer that the host will make. Errors: as for
    /// `load` of such a file. [any-thread] since 0.2
    pub from_json:
        Option<unsafe extern "C" fn(json: et_str, out: *mut *mut et_tokenizer) -> *mut et_error>,
}
