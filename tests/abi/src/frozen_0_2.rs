//! The tables as version 0.2 has them, written by `cargo xtask freeze`; tests/layout_check.rs compares them
//! with today's.

use core::ffi::{c_char, c_void};
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_cuda_launch {
    pub struct_size: usize,
    pub ptx: et_str,
    pub kernel: et_str,
    pub grid_x: u32,
    pub grid_y: u32,
    pub grid_z: u32,
    pub block_x: u32,
    pub block_y: u32,
    pub block_z: u32,
    pub shared_size: usize,
    pub args: *const *const c_void,
    pub args_len: usize,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_cuda {
    pub struct_size: usize,
    pub device: Option<unsafe extern "C" fn() -> i32>,
    pub stream: Option<unsafe extern "C" fn(out: *mut *mut c_void) -> *mut et_error>,
    pub launch: Option<unsafe extern "C" fn(args: *const et_cuda_launch) -> *mut et_error>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_buffer {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_map {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_row {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_rows {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_stream {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_config {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_tokenizer {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_encoding {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_data {
    pub struct_size: usize,

    pub buffer_new: Option<
        unsafe extern "C" fn(
            data: *const c_void,
            size: usize,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub buffer_map_file:
        Option<unsafe extern "C" fn(path: et_str, out: *mut *mut et_buffer) -> *mut et_error>,
    pub buffer_data: Option<unsafe extern "C" fn(buffer: *const et_buffer) -> *const c_void>,
    pub buffer_size: Option<unsafe extern "C" fn(buffer: *const et_buffer) -> usize>,
    pub buffer_release: Option<unsafe extern "C" fn(buffer: *mut et_buffer)>,

    pub map_new: Option<unsafe extern "C" fn(out: *mut *mut et_map) -> *mut et_error>,
    pub map_release: Option<unsafe extern "C" fn(map: *mut et_map)>,
    pub map_len: Option<unsafe extern "C" fn(map: *const et_map) -> usize>,
    pub map_name: Option<unsafe extern "C" fn(map: *const et_map, index: usize) -> et_str>,
    pub map_get: Option<
        unsafe extern "C" fn(
            map: *const et_map,
            name: et_str,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub map_has: Option<unsafe extern "C" fn(map: *const et_map, name: et_str) -> i32>,
    pub map_put: Option<
        unsafe extern "C" fn(
            map: *mut et_map,
            name: et_str,
            tensor: *const et_tensor,
        ) -> *mut et_error,
    >,
    pub map_remove: Option<unsafe extern "C" fn(map: *mut et_map, name: et_str)>,

    pub row_new: Option<unsafe extern "C" fn(out: *mut *mut et_row) -> *mut et_error>,
    pub row_release: Option<unsafe extern "C" fn(row: *mut et_row)>,
    pub row_put_tokens: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            name: et_str,
            values: *const i64,
            len: usize,
        ) -> *mut et_error,
    >,
    pub row_put_i64: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            name: et_str,
            values: *const i64,
            len: usize,
        ) -> *mut et_error,
    >,
    pub row_put_f32: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            name: et_str,
            values: *const f32,
            len: usize,
        ) -> *mut et_error,
    >,
    pub row_tokens_len: Option<unsafe extern "C" fn(row: *const et_row) -> usize>,
    pub row_merge: Option<
        unsafe extern "C" fn(
            row: *mut et_row,
            prefix: et_str,
            source: *const et_row,
        ) -> *mut et_error,
    >,
    pub batch_from_rows: Option<
        unsafe extern "C" fn(
            rows: *const *const et_row,
            rows_len: usize,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,

    pub rows_new: Option<unsafe extern "C" fn(out: *mut *mut et_rows) -> *mut et_error>,
    pub rows_release: Option<unsafe extern "C" fn(rows: *mut et_rows)>,
    pub rows_add:
        Option<unsafe extern "C" fn(rows: *mut et_rows, out: *mut *mut et_row) -> *mut et_error>,
    pub rows_len: Option<unsafe extern "C" fn(rows: *const et_rows) -> usize>,
    pub rows_get: Option<
        unsafe extern "C" fn(
            rows: *const et_rows,
            index: usize,
            out: *mut *mut et_row,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_stream {
    pub struct_size: usize,
    pub write: Option<
        unsafe extern "C" fn(
            stream: *mut et_stream,
            data: *const c_void,
            size: usize,
        ) -> *mut et_error,
    >,
    pub read: Option<
        unsafe extern "C" fn(
            stream: *mut et_stream,
            data: *mut c_void,
            size: usize,
        ) -> *mut et_error,
    >,
    pub remaining: Option<unsafe extern "C" fn(stream: *const et_stream) -> usize>,
    pub memory_new: Option<
        unsafe extern "C" fn(
            data: *const c_void,
            size: usize,
            out: *mut *mut et_stream,
        ) -> *mut et_error,
    >,
    pub bytes: Option<
        unsafe extern "C" fn(stream: *const et_stream, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(stream: *mut et_stream)>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_config {
    pub struct_size: usize,
    pub parse:
        Option<unsafe extern "C" fn(json: et_str, out: *mut *mut et_config) -> *mut et_error>,
    pub release: Option<unsafe extern "C" fn(config: *mut et_config)>,
    pub has: Option<unsafe extern "C" fn(config: *const et_config, key: et_str) -> i32>,
    pub f64_at: Option<
        unsafe extern "C" fn(config: *const et_config, key: et_str, out: *mut f64) -> *mut et_error,
    >,
    pub i64_at: Option<
        unsafe extern "C" fn(config: *const et_config, key: et_str, out: *mut i64) -> *mut et_error,
    >,
    pub bool_at: Option<
        unsafe extern "C" fn(config: *const et_config, key: et_str, out: *mut i32) -> *mut et_error,
    >,
    pub str_at: Option<
        unsafe extern "C" fn(
            config: *const et_config,
            key: et_str,
            out: *mut et_str,
        ) -> *mut et_error,
    >,
    pub len_at: Option<
        unsafe extern "C" fn(
            config: *const et_config,
            key: et_str,
            out: *mut usize,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_encode_options {
    pub struct_size: usize,
    pub max_len: usize,
    pub add_special_tokens: i32,
    pub reserved: i32,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_tokenizer {
    pub struct_size: usize,
    pub load:
        Option<unsafe extern "C" fn(path: et_str, out: *mut *mut et_tokenizer) -> *mut et_error>,
    pub retain: Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer) -> *mut et_tokenizer>,
    pub release: Option<unsafe extern "C" fn(tokenizer: *mut et_tokenizer)>,
    pub vocab_len: Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer) -> usize>,
    pub token_id:
        Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer, token: et_str) -> i64>,
    pub token_text: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            id: i64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub encode: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            text: et_str,
            pair: *const et_str,
            options: *const et_encode_options,
            out: *mut *mut et_encoding,
        ) -> *mut et_error,
    >,
    pub decode: Option<
        unsafe extern "C" fn(
            tokenizer: *const et_tokenizer,
            ids: *const i64,
            len: usize,
            skip_special_tokens: i32,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub save: Option<
        unsafe extern "C" fn(tokenizer: *const et_tokenizer, directory: et_str) -> *mut et_error,
    >,
    pub encoding_len: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> usize>,
    pub encoding_ids: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    pub encoding_segments: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    pub encoding_special: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    pub encoding_offsets: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
    pub encoding_truncated: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> i32>,
    pub encoding_release: Option<unsafe extern "C" fn(encoding: *mut et_encoding)>,
    pub encoding_words: Option<unsafe extern "C" fn(encoding: *const et_encoding) -> *const i64>,
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
    pub added_len: Option<unsafe extern "C" fn(tokenizer: *const et_tokenizer, pair: i32) -> usize>,
    pub from_json:
        Option<unsafe extern "C" fn(json: et_str, out: *mut *mut et_tokenizer) -> *mut et_error>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_tensor {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_params {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_scope {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_param {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_rng {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_tensor {
    pub struct_size: usize,

    pub retain: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> *mut et_tensor>,
    pub release: Option<unsafe extern "C" fn(tensor: *mut et_tensor)>,
    pub dtype: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> i32>,
    pub rank: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> usize>,
    pub shape: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> *const usize>,
    pub len: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> usize>,
    pub is_tracked: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> i32>,
    pub is_contiguous: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> i32>,

    pub from_data: Option<
        unsafe extern "C" fn(
            dtype: i32,
            shape: *const usize,
            rank: usize,
            data: *const c_void,
            size: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub full: Option<
        unsafe extern "C" fn(
            dtype: i32,
            shape: *const usize,
            rank: usize,
            value: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub arange: Option<
        unsafe extern "C" fn(
            dtype: i32,
            start: f64,
            step: f64,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub read: Option<
        unsafe extern "C" fn(
            tensor: *const et_tensor,
            data: *mut c_void,
            size: usize,
        ) -> *mut et_error,
    >,

    pub unary: Option<
        unsafe extern "C" fn(
            op: i32,
            x: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub binary: Option<
        unsafe extern "C" fn(
            op: i32,
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub compare: Option<
        unsafe extern "C" fn(
            op: i32,
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub affine: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            scale: f64,
            shift: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub power: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            exponent: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub clamp: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            low: f64,
            high: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub reduce: Option<
        unsafe extern "C" fn(
            op: i32,
            x: *const et_tensor,
            axes: *const i64,
            axes_len: usize,
            keep_axes: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub matmul: Option<
        unsafe extern "C" fn(
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub select: Option<
        unsafe extern "C" fn(
            condition: *const et_tensor,
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,

    pub reshape: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            shape: *const usize,
            rank: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub permute: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axes: *const i64,
            axes_len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub narrow: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            start: usize,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub broadcast_to: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            shape: *const usize,
            rank: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub contiguous: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub concat: Option<
        unsafe extern "C" fn(
            tensors: *const *const et_tensor,
            len: usize,
            axis: i64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub index_select: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            index: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub gather: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            index: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub index_add: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            index: *const et_tensor,
            source: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub cast: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            dtype: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi, Clone, Copy)]
pub struct et_segment {
    pub struct_size: usize,
    pub state: *mut c_void,
    pub run: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            inputs: *const *const et_tensor,
            inputs_len: usize,
            rng: *mut et_rng,
            outputs: *mut *mut et_tensor,
            outputs_len: usize,
        ) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(state: *mut c_void)>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_autograd {
    pub struct_size: usize,
    pub detach: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub leaf: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub leaf_grad: Option<
        unsafe extern "C" fn(leaf: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub backward: Option<
        unsafe extern "C" fn(loss: *const et_tensor, seed: *const et_tensor) -> *mut et_error,
    >,
    pub pause: Option<unsafe extern "C" fn()>,
    pub resume: Option<unsafe extern "C" fn()>,
    pub is_recording: Option<unsafe extern "C" fn() -> i32>,
    pub apply_op: Option<
        unsafe extern "C" fn(
            op: *const crate::et_plugin_op,
            state: *mut c_void,
            inputs: *const *const et_tensor,
            inputs_len: usize,
            outputs: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub checkpoint: Option<
        unsafe extern "C" fn(
            segment: *const et_segment,
            inputs: *const *const et_tensor,
            inputs_len: usize,
            rng: *mut et_rng,
            outputs: *mut *mut et_tensor,
            outputs_len: usize,
        ) -> *mut et_error,
    >,
    pub set_recompute: Option<unsafe extern "C" fn(level: i32) -> *mut et_error>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi, Clone, Copy)]
pub struct et_rng_state {
    pub seed: u64,
    pub stream: u64,
    pub offset: u64,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_rng {
    pub struct_size: usize,
    pub create: Option<
        unsafe extern "C" fn(seed: u64, stream: u64, out: *mut *mut et_rng) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(rng: *mut et_rng)>,
    pub state: Option<unsafe extern "C" fn(rng: *const et_rng) -> et_rng_state>,
    pub set_state: Option<unsafe extern "C" fn(rng: *mut et_rng, state: et_rng_state)>,
    pub bits: Option<unsafe extern "C" fn(rng: *mut et_rng) -> u64>,
    pub uniform: Option<
        unsafe extern "C" fn(
            rng: *mut et_rng,
            dtype: i32,
            shape: *const usize,
            rank: usize,
            low: f64,
            high: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub normal: Option<
        unsafe extern "C" fn(
            rng: *mut et_rng,
            dtype: i32,
            shape: *const usize,
            rank: usize,
            mean: f64,
            deviation: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi, Clone, Copy)]
pub struct et_init {
    pub kind: i32,
    pub reserved: i32,
    pub a: f64,
    pub b: f64,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_param {
    pub struct_size: usize,

    pub params_new: Option<
        unsafe extern "C" fn(seed: u64, dtype: i32, out: *mut *mut et_params) -> *mut et_error,
    >,
    pub params_release: Option<unsafe extern "C" fn(params: *mut et_params)>,
    pub params_root: Option<unsafe extern "C" fn(params: *const et_params) -> *mut et_scope>,
    pub params_len: Option<unsafe extern "C" fn(params: *const et_params) -> usize>,
    pub params_at:
        Option<unsafe extern "C" fn(params: *const et_params, index: usize) -> *mut et_param>,
    pub params_find: Option<
        unsafe extern "C" fn(
            params: *const et_params,
            name: et_str,
            out: *mut *mut et_param,
        ) -> *mut et_error,
    >,
    pub params_seal: Option<unsafe extern "C" fn(params: *mut et_params) -> *mut et_error>,
    pub params_arena_len: Option<unsafe extern "C" fn(params: *const et_params) -> usize>,
    pub params_zero_grads: Option<unsafe extern "C" fn(params: *mut et_params)>,
    pub params_grad_norm:
        Option<unsafe extern "C" fn(params: *const et_params, out: *mut f64) -> *mut et_error>,
    pub params_scale_grads:
        Option<unsafe extern "C" fn(params: *mut et_params, factor: f64) -> *mut et_error>,
    pub params_snapshot: Option<
        unsafe extern "C" fn(params: *const et_params, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub params_restore: Option<
        unsafe extern "C" fn(params: *mut et_params, snapshot: *const et_buffer) -> *mut et_error,
    >,

    pub scope_child: Option<
        unsafe extern "C" fn(
            scope: *const et_scope,
            name: et_str,
            out: *mut *mut et_scope,
        ) -> *mut et_error,
    >,
    pub scope_path: Option<unsafe extern "C" fn(scope: *const et_scope) -> et_str>,
    pub scope_param: Option<
        unsafe extern "C" fn(
            scope: *const et_scope,
            name: et_str,
            shape: *const usize,
            rank: usize,
            init: *const et_init,
            out: *mut *mut et_param,
        ) -> *mut et_error,
    >,
    pub scope_release: Option<unsafe extern "C" fn(scope: *mut et_scope)>,

    pub retain: Option<unsafe extern "C" fn(param: *const et_param) -> *mut et_param>,
    pub release: Option<unsafe extern "C" fn(param: *mut et_param)>,
    pub name: Option<unsafe extern "C" fn(param: *const et_param) -> et_str>,
    pub rank: Option<unsafe extern "C" fn(param: *const et_param) -> usize>,
    pub shape: Option<unsafe extern "C" fn(param: *const et_param) -> *const usize>,
    pub tensor: Option<
        unsafe extern "C" fn(param: *const et_param, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub grad: Option<
        unsafe extern "C" fn(param: *const et_param, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub has_grad: Option<unsafe extern "C" fn(param: *const et_param) -> i32>,
    pub set_grad:
        Option<unsafe extern "C" fn(param: *mut et_param, grad: *const et_tensor) -> *mut et_error>,
    pub assign: Option<
        unsafe extern "C" fn(param: *mut et_param, value: *const et_tensor) -> *mut et_error,
    >,
    pub assign_buffer: Option<
        unsafe extern "C" fn(
            param: *mut et_param,
            dtype: i32,
            buffer: *const et_buffer,
            offset: usize,
        ) -> *mut et_error,
    >,
    pub is_trainable: Option<unsafe extern "C" fn(param: *const et_param) -> i32>,
    pub set_trainable:
        Option<unsafe extern "C" fn(param: *mut et_param, trainable: i32) -> *mut et_error>,
    pub lr_scale: Option<unsafe extern "C" fn(param: *const et_param) -> f64>,
    pub set_lr_scale:
        Option<unsafe extern "C" fn(param: *mut et_param, scale: f64) -> *mut et_error>,
    pub has_decay: Option<unsafe extern "C" fn(param: *const et_param) -> i32>,
    pub set_decay: Option<unsafe extern "C" fn(param: *mut et_param, decay: i32)>,
    pub set_low_rank: Option<
        unsafe extern "C" fn(
            param: *mut et_param,
            a: *const et_param,
            b: *const et_param,
            scale: f64,
        ) -> *mut et_error,
    >,
    pub merged: Option<
        unsafe extern "C" fn(param: *const et_param, out: *mut *mut et_tensor) -> *mut et_error,
    >,

    pub params_retain: Option<unsafe extern "C" fn(params: *const et_params) -> *mut et_params>,
    pub params_part: Option<
        unsafe extern "C" fn(
            params: *const et_params,
            patterns: *const et_str,
            len: usize,
            out: *mut *mut et_params,
        ) -> *mut et_error,
    >,
    pub params_lerp: Option<
        unsafe extern "C" fn(
            to: *mut et_params,
            from: *const et_params,
            factor: f64,
        ) -> *mut et_error,
    >,
    pub params_add_grads: Option<
        unsafe extern "C" fn(
            to: *mut et_params,
            from: *const et_params,
            factor: f64,
        ) -> *mut et_error,
    >,
    pub params_arena: Option<
        unsafe extern "C" fn(
            params: *mut et_params,
            which: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_layer_norm {
    pub struct_size: usize,
    pub x: *const et_tensor,
    pub residual: *const et_tensor,
    pub gamma: *const et_tensor,
    pub beta: *const et_tensor,
    pub epsilon: f64,
    pub dropout: f64,
    pub rng: *mut et_rng,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_attention {
    pub struct_size: usize,
    pub query: *const et_tensor,
    pub key: *const et_tensor,
    pub value: *const et_tensor,
    pub starts: *const et_tensor,
    pub key_starts: *const et_tensor,
    pub heads: usize,
    pub scale: f64,
    pub dropout: f64,
    pub rng: *mut et_rng,
    pub causal: i32,
    pub reserved: i32,
    pub window: usize,
    pub bias: *const et_tensor,
    pub bias_buckets: *const et_tensor,
    pub position_keys: *const et_tensor,
    pub position_query: *const et_tensor,
    pub position_queries: *const et_tensor,
    pub position_buckets: *const et_tensor,
    pub segment_scores: *const et_tensor,
    pub segments: *const et_tensor,
    pub key_segments: *const et_tensor,
    pub order: *const et_tensor,
    pub key_order: *const et_tensor,
    pub order_inclusive: i32,
    pub reserved_2: i32,
}

#[repr(C)]
#[derive(abi_stable::StableAbi, Clone, Copy)]
pub struct et_optim_step {
    pub struct_size: usize,
    pub kind: i32,
    pub nesterov: i32,
    pub lr: f64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub momentum: f64,
    pub step: u64,
    pub begin: usize,
    pub end: usize,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_nn {
    pub struct_size: usize,
    pub linear: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            weight: *const et_tensor,
            bias: *const et_tensor,
            activation: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub layer_norm: Option<
        unsafe extern "C" fn(args: *const et_layer_norm, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub rms_norm: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            gamma: *const et_tensor,
            epsilon: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub embedding_sum: Option<
        unsafe extern "C" fn(
            tables: *const *const et_tensor,
            ids: *const *const et_tensor,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub attention: Option<
        unsafe extern "C" fn(args: *const et_attention, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub softmax: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub log_softmax: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    pub cross_entropy: Option<
        unsafe extern "C" fn(
            logits: *const et_tensor,
            labels: *const et_tensor,
            weights: *const et_tensor,
            ignore_index: i64,
            smoothing: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub binary_cross_entropy: Option<
        unsafe extern "C" fn(
            logits: *const et_tensor,
            targets: *const et_tensor,
            weights: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub dropout: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            p: f64,
            rng: *mut et_rng,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub pool: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            starts: *const et_tensor,
            kind: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub to_padded: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            starts: *const et_tensor,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub from_padded: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            starts: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub conv1d: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            weight: *const et_tensor,
            bias: *const et_tensor,
            starts: *const et_tensor,
            dilation: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub lstm: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            w_ih: *const et_tensor,
            w_hh: *const et_tensor,
            b_ih: *const et_tensor,
            b_hh: *const et_tensor,
            starts: *const et_tensor,
            reverse: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub gru: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            w_ih: *const et_tensor,
            w_hh: *const et_tensor,
            b_ih: *const et_tensor,
            b_hh: *const et_tensor,
            starts: *const et_tensor,
            reverse: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub crf_loss: Option<
        unsafe extern "C" fn(
            emissions: *const et_tensor,
            tags: *const et_tensor,
            starts: *const et_tensor,
            transitions: *const et_tensor,
            first: *const et_tensor,
            last: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub crf_decode: Option<
        unsafe extern "C" fn(
            emissions: *const et_tensor,
            starts: *const et_tensor,
            transitions: *const et_tensor,
            first: *const et_tensor,
            last: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub optim_state: Option<
        unsafe extern "C" fn(
            params: *const et_params,
            kind: i32,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    pub optim_step: Option<
        unsafe extern "C" fn(
            params: *mut et_params,
            state: *mut et_map,
            step: *const et_optim_step,
        ) -> *mut et_error,
    >,
    pub supports:
        Option<unsafe extern "C" fn(family: *const c_char, opcode: i32, dtype: i32) -> i32>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_group {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_group_table {
    pub struct_size: usize,
    pub rank: Option<unsafe extern "C" fn(group: *const et_group) -> usize>,
    pub size: Option<unsafe extern "C" fn(group: *const et_group) -> usize>,
    pub all_reduce: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            data: *const et_view,
            reduction: i32,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    pub reduce_scatter: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            data: *const et_view,
            part: *const et_view,
            reduction: i32,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    pub all_gather: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            part: *const et_view,
            data: *const et_view,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    pub broadcast: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            data: *const et_view,
            root: usize,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    pub barrier: Option<unsafe extern "C" fn(group: *mut et_group) -> *mut et_error>,
    pub release: Option<unsafe extern "C" fn(group: *mut et_group)>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_group_record {
    pub magic: u64,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub struct_size: usize,
    pub id: *const c_char,
    pub version: *const c_char,
    pub join: Option<
        unsafe extern "C" fn(
            host: *const et_host,
            options: et_str,
            table: *mut *const et_group_table,
            out: *mut *mut et_group,
        ) -> *mut et_error,
    >,
}
#[repr(C)]
#[derive(abi_stable::StableAbi, Clone, Copy)]
pub struct et_str {
    pub ptr: *const c_char,
    pub len: usize,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_error {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host {
    pub struct_size: usize,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub get_interface:
        Option<unsafe extern "C" fn(host: *const et_host, id: *const c_char) -> *const c_void>,
    pub get_experimental:
        Option<unsafe extern "C" fn(host: *const et_host, name: *const c_char) -> *const c_void>,
    pub error_new: Option<unsafe extern "C" fn(code: i32, message: et_str) -> *mut et_error>,
    pub error_code: Option<unsafe extern "C" fn(error: *const et_error) -> i32>,
    pub error_message: Option<unsafe extern "C" fn(error: *const et_error) -> et_str>,
    pub error_release: Option<unsafe extern "C" fn(error: *mut et_error)>,
    pub live_handles: Option<unsafe extern "C" fn() -> i64>,
    pub error_new_detailed:
        Option<unsafe extern "C" fn(code: i32, message: et_str, details: et_str) -> *mut et_error>,
    pub error_details: Option<unsafe extern "C" fn(error: *const et_error) -> et_str>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_log {
    pub struct_size: usize,
    pub write: Option<unsafe extern "C" fn(level: i32, target: et_str, message: et_str)>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_engine_record {
    pub magic: u64,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub struct_size: usize,
    pub id: *const c_char,
    pub version: *const c_char,
    pub host: *const et_host,
    pub open: Option<unsafe extern "C" fn(device: i32, options: et_str) -> *mut et_error>,
    pub provide: Option<unsafe extern "C" fn(id: *const c_char, table: *const c_void)>,
    pub report: Option<unsafe extern "C" fn(out: *mut *mut et_buffer) -> *mut et_error>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_context {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_net {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_context {
    pub struct_size: usize,
    pub training: Option<unsafe extern "C" fn(context: *const et_context) -> i32>,
    pub epoch: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    pub source: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    pub record: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    pub records_len: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    pub record_at: Option<
        unsafe extern "C" fn(
            context: *mut et_context,
            index: u64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub rng: Option<
        unsafe extern "C" fn(context: *mut et_context, out: *mut *mut et_rng) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_net {
    pub struct_size: usize,
    pub run: Option<
        unsafe extern "C" fn(
            net: *mut et_net,
            module: et_str,
            call: *const et_call,
            batch: *const et_map,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
    pub param: Option<
        unsafe extern "C" fn(
            net: *mut et_net,
            name: et_str,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub generate: Option<
        unsafe extern "C" fn(
            net: *mut et_net,
            module: et_str,
            batch: *const et_map,
            options: et_str,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_record {
    pub magic: u64,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub struct_size: usize,
    pub flags: u32,
    pub reserved: u32,
    pub id: *const c_char,
    pub version: *const c_char,
    pub init: Option<unsafe extern "C" fn(host: *const et_host) -> *mut et_error>,
    pub shutdown: Option<unsafe extern "C" fn()>,
    pub component: Option<unsafe extern "C" fn(kind: *const c_char, index: usize) -> *const c_void>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi, Clone, Copy)]
pub struct et_call {
    pub struct_size: usize,
    pub training: i32,
    pub want: u32,
    pub rng: *mut et_rng,
    pub cache: *mut et_map,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_model {
    pub struct_size: usize,
    pub name: *const c_char,
    pub schema: *const c_char,
    pub create: Option<
        unsafe extern "C" fn(
            config: et_str,
            scope: *const et_scope,
            out: *mut *mut c_void,
        ) -> *mut et_error,
    >,
    pub describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            batch: *const et_map,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_loss {
    pub struct_size: usize,
    pub name: *const c_char,
    pub schema: *const c_char,
    pub create:
        Option<unsafe extern "C" fn(options: et_str, out: *mut *mut c_void) -> *mut et_error>,
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    pub rows: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub weight: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            batch: *const et_map,
            out: *mut f64,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_optimizer {
    pub struct_size: usize,
    pub name: *const c_char,
    pub schema: *const c_char,
    pub create: Option<
        unsafe extern "C" fn(
            options: et_str,
            params: *mut et_params,
            out: *mut *mut c_void,
        ) -> *mut et_error,
    >,
    pub step: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            params: *mut et_params,
            lr: f64,
            step: u64,
        ) -> *mut et_error,
    >,
    pub state_save: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    pub state_load: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    pub step_part: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            params: *mut et_params,
            lr: f64,
            step: u64,
            begin: usize,
            end: usize,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_strategy {
    pub struct_size: usize,
    pub name: *const c_char,
    pub schema: *const c_char,
    pub create:
        Option<unsafe extern "C" fn(options: et_str, out: *mut *mut c_void) -> *mut et_error>,
    pub phases: Option<unsafe extern "C" fn(instance: *mut c_void) -> u32>,
    pub on_setup: Option<
        unsafe extern "C" fn(instance: *mut c_void, session: *mut et_session) -> *mut et_error,
    >,
    pub on_batch: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            batch: *mut et_map,
        ) -> *mut et_error,
    >,
    pub on_outputs: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            batch: *const et_map,
            outputs: *const et_map,
        ) -> *mut et_error,
    >,
    pub combine: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            losses: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub on_gradients: Option<
        unsafe extern "C" fn(instance: *mut c_void, session: *mut et_session) -> *mut et_error,
    >,
    pub on_epoch: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            epoch: u64,
            metrics: et_str,
        ) -> *mut et_error,
    >,
    pub fit: Option<
        unsafe extern "C" fn(instance: *mut c_void, session: *mut et_session) -> *mut et_error,
    >,
    pub state_save: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    pub state_load: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    pub columns: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_app {
    pub struct_size: usize,
    pub name: *const c_char,
    pub schema: *const c_char,
    pub create: Option<
        unsafe extern "C" fn(
            options: et_str,
            state: et_str,
            out: *mut *mut c_void,
        ) -> *mut et_error,
    >,
    pub columns: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub observe:
        Option<unsafe extern "C" fn(instance: *mut c_void, record: et_str) -> *mut et_error>,
    pub observed: Option<unsafe extern "C" fn(instance: *mut c_void) -> *mut et_error>,
    pub state: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub features: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            context: *mut et_context,
            tokenizer: *const et_tokenizer,
            record: et_str,
            rows: *mut et_rows,
        ) -> *mut et_error,
    >,
    pub build: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            scope: *const et_scope,
            model: et_str,
        ) -> *mut et_error,
    >,
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            net: *mut et_net,
            batch: *const et_map,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
    pub decode: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            batch: *const et_map,
            outputs: *const et_map,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    pub finish: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            record: et_str,
            parts: et_str,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_metric {
    pub struct_size: usize,
    pub name: *const c_char,
    pub schema: *const c_char,
    pub create:
        Option<unsafe extern "C" fn(options: et_str, out: *mut *mut c_void) -> *mut et_error>,
    pub update: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            outputs: *const et_map,
            batch: *const et_map,
        ) -> *mut et_error,
    >,
    pub compute: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    pub describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub answers: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            answers: et_str,
            records: et_str,
        ) -> *mut et_error,
    >,
    pub state_save: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    pub state_merge: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_view {
    pub struct_size: usize,
    pub data: *mut c_void,
    pub device_type: i32,
    pub device_id: i32,
    pub dtype: i32,
    pub rank: i32,
    pub shape: *const i64,
    pub strides: *const i64,
    pub byte_offset: usize,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_op_call {
    pub struct_size: usize,
    pub state: *mut c_void,
    pub inputs: *const *const et_view,
    pub inputs_len: usize,
    pub outputs: *const *const et_view,
    pub outputs_len: usize,
    pub stream: *mut c_void,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_plugin_op {
    pub struct_size: usize,
    pub name: *const c_char,
    pub flags: u32,
    pub inputs_len: u32,
    pub outputs_len: u32,
    pub reserved: u32,
    pub infer: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            inputs: *const *const et_view,
            dtypes: *mut i32,
            ranks: *mut i32,
            shapes: *const *mut i64,
        ) -> *mut et_error,
    >,
    pub forward: Option<unsafe extern "C" fn(call: *const et_op_call) -> *mut et_error>,
    pub backward: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            inputs: *const *const et_tensor,
            outputs: *const *const et_tensor,
            output_grads: *const *const et_tensor,
            input_grads: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_registry {
    pub struct_size: usize,
    pub op:
        Option<unsafe extern "C" fn(name: et_str, out: *mut *const et_plugin_op) -> *mut et_error>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_profile {
    pub struct_size: usize,
    pub is_on: Option<unsafe extern "C" fn() -> i32>,
    pub start: Option<unsafe extern "C" fn(capacity: usize)>,
    pub stop: Option<unsafe extern "C" fn()>,
    pub begin: Option<unsafe extern "C" fn(category: et_str, name: et_str) -> u64>,
    pub note: Option<unsafe extern "C" fn(span: u64, key: et_str, value: f64)>,
    pub end: Option<unsafe extern "C" fn(span: u64)>,
    pub trace: Option<unsafe extern "C" fn(out: *mut *mut et_buffer) -> *mut et_error>,
    pub summary: Option<unsafe extern "C" fn(out: *mut *mut et_buffer) -> *mut et_error>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_session {
    _opaque: [u8; 0],
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_session_optimizer {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_session {
    pub struct_size: usize,
    pub params: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            out: *mut *mut et_params,
        ) -> *mut et_error,
    >,
    pub load_model: Option<
        unsafe extern "C" fn(session: *mut et_session, name: et_str, path: et_str) -> *mut et_error,
    >,
    pub describe: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub forward: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            batch: *const et_map,
            training: i32,
            want: u32,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    pub loss: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub add_loss: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            loss: *const et_tensor,
            weight: f64,
        ) -> *mut et_error,
    >,
    pub set_loss_weight:
        Option<unsafe extern "C" fn(session: *mut et_session, weight: f64) -> *mut et_error>,
    pub want: Option<unsafe extern "C" fn(session: *mut et_session, want: u32) -> *mut et_error>,
    pub next_batch: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    pub open_source: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            path: et_str,
            options: et_str,
        ) -> *mut et_error,
    >,
    pub optimizer: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            options: et_str,
            params: *mut et_params,
            out: *mut *mut et_session_optimizer,
        ) -> *mut et_error,
    >,
    pub optimizer_step: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            optimizer: *mut et_session_optimizer,
            lr: f64,
        ) -> *mut et_error,
    >,
    pub evaluate: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            source: et_str,
            rows: u64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub log_scalar: Option<
        unsafe extern "C" fn(session: *mut et_session, name: et_str, value: f64) -> *mut et_error,
    >,
    pub step: Option<unsafe extern "C" fn(session: *const et_session) -> u64>,
    pub total_steps: Option<unsafe extern "C" fn(session: *const et_session) -> u64>,
    pub is_cancelled: Option<unsafe extern "C" fn(session: *const et_session) -> i32>,

    pub module: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            model: et_str,
            config: et_str,
            flags: u32,
            out: *mut *mut et_scope,
        ) -> *mut et_error,
    >,
    pub keep:
        Option<unsafe extern "C" fn(session: *mut et_session, module: et_str) -> *mut et_error>,
    pub sources: Option<
        unsafe extern "C" fn(session: *mut et_session, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    pub draw_batch: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            sources: *const et_str,
            weights: *const f64,
            len: usize,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    pub records: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            numbers: *const u64,
            len: usize,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    pub record: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            number: u64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    pub loss_rows: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    pub set_total_steps:
        Option<unsafe extern "C" fn(session: *mut et_session, steps: u64) -> *mut et_error>,
    pub lr: Option<unsafe extern "C" fn(session: *mut et_session) -> f64>,
    pub step_once:
        Option<unsafe extern "C" fn(session: *mut et_session, source: et_str) -> *mut et_error>,
    pub backward: Option<
        unsafe extern "C" fn(session: *mut et_session, loss: *const et_tensor) -> *mut et_error,
    >,
    pub commit: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            figures: et_str,
            saver: *const et_saver,
            out: *mut i32,
        ) -> *mut et_error,
    >,
}

#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_saver {
    pub struct_size: usize,
    pub context: *mut c_void,
    pub save:
        Option<unsafe extern "C" fn(context: *mut c_void, stream: *mut et_stream) -> *mut et_error>,
}
#[repr(C)]
#[derive(abi_stable::StableAbi)]
pub struct et_host_step {
    pub struct_size: usize,
    pub defers: Option<unsafe extern "C" fn() -> i32>,
    pub prefetch: Option<unsafe extern "C" fn(batch: *const et_map) -> *mut et_error>,
    pub clip_grads: Option<
        unsafe extern "C" fn(
            params: *mut et_params,
            limit: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

/// Hands the names of all tables to another macro.
macro_rules! tables {
    ($with:ident) => {
        $with!(
            et_cuda_launch,
            et_host_cuda,
            et_host_data,
            et_host_stream,
            et_host_config,
            et_encode_options,
            et_host_tokenizer,
            et_host_tensor,
            et_segment,
            et_host_autograd,
            et_rng_state,
            et_host_rng,
            et_init,
            et_host_param,
            et_layer_norm,
            et_attention,
            et_optim_step,
            et_host_nn,
            et_group_table,
            et_group_record,
            et_str,
            et_host,
            et_host_log,
            et_engine_record,
            et_host_context,
            et_host_net,
            et_plugin_record,
            et_call,
            et_plugin_model,
            et_plugin_loss,
            et_plugin_optimizer,
            et_plugin_strategy,
            et_plugin_app,
            et_plugin_metric,
            et_view,
            et_op_call,
            et_plugin_op,
            et_host_registry,
            et_host_profile,
            et_host_session,
            et_saver,
            et_host_step
        )
    };
}
pub(crate) use tables;
