//! The device as the engine sees it: every method goes to the file of its family. A shape or a size that has no
//! kernel is declined.

use std::ffi::c_void;

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::ET_DEVICE_CUDA;
use easytransfer_core::data::Map;
use easytransfer_core::device::{Device, Mark, Norm, Padding, Ranges, Recurrent, Step};
use easytransfer_core::error::{Error, Result};
use easytransfer_core::storage::Value;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::activation::Activation;
use easytransfer_kernels::attention::AttentionShape;
use easytransfer_kernels::cross_entropy::CrossEntropy;
use easytransfer_kernels::padding::Pool;
use easytransfer_kernels::philox::Dropout;

use super::device::Engine;
use super::{
    activation, ahead, attention, clip, conv, crf, device, embedding, held, interface, linear,
    loss, memory, mixed, norm, optim, padding, pool, recurrent, reuse, softmax, timing,
};

impl Device for Engine {
    fn kind(&self) -> i32 {
        ET_DEVICE_CUDA
    }

    fn number(&self) -> i32 {
        device::number()
    }

    fn report(&self) -> String {
        device::report(self)
    }

    fn interface(&self, id: &str) -> Option<*const c_void> {
        (id == "et.cuda/1").then(|| std::ptr::from_ref(&interface::TABLE).cast())
    }

    fn holds(&self, x: &Raw) -> bool {
        !x.device().is_cpu()
    }

    fn is_home(&self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::BF16 | DType::F16 | DType::U8)
    }

    fn empty(&self, dtype: DType, shape: &[usize]) -> Result<Raw> {
        Ok(memory::empty(dtype, shape)?.into_inner())
    }

    fn upload(&self, x: &Raw) -> Result<Raw> {
        // New tensors fill their memory, so there is nothing to leave out.
        memory::to_card(x, self)
    }

    fn download(&self, x: &Raw) -> Result<Raw> {
        memory::to_host(x)
    }

    fn overwrite(&self, x: &Raw, host: &Raw) -> Result<()> {
        memory::overwrite(x, host)
    }

    fn recycle(&self, x: Raw) {
        reuse::recycle(x);
    }

    fn end_step(&self) {
        reuse::end_step();
    }

    fn prefetch(&self, batch: &Map) -> Result<()> {
        ahead::prefetch(batch)
    }

    fn out_of_memory(&self, doing: &str) -> Error {
        held::out_of_memory(doing)
    }

    fn fell_back(&self, place: &'static str) {
        device::count_fallback(place);
    }

    fn stream(&self) -> Result<*mut c_void> {
        device::bound_stream()
    }

    fn address(&self, x: &Raw) -> Result<u64> {
        memory::address(x)
    }

    fn mark(&self) -> Option<Mark> {
        timing::mark(self)
    }

    fn between(&self, begin: &Mark, end: &Mark) -> f64 {
        timing::between(begin, end)
    }

    fn restart_marks(&self) {
        timing::restart();
    }

    fn linear(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Option<Tensor>> {
        linear::linear(x, weight, bias, activation).map(Some)
    }

    fn activate(
        &self,
        name: &'static str,
        activation: Activation,
        x: &Tensor,
    ) -> Result<Option<Tensor>> {
        activation::activate(name, activation, x).map(Some)
    }

    fn dropout(&self, x: &Tensor, dropout: Dropout) -> Result<Option<Tensor>> {
        activation::dropout(x, dropout).map(Some)
    }

    fn norm(&self, norm: Norm<'_>) -> Result<Option<Tensor>> {
        norm::norm(norm).map(Some)
    }

    fn softmax(&self, x: &Tensor, log: bool) -> Result<Option<Tensor>> {
        softmax::softmax(x, log).map(Some)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
    ) -> Result<Option<Tensor>> {
        if shape.head_size > attention::LARGEST_HEAD {
            return Ok(None);
        }
        attention::attention(q, k, v, shape, dropout).map(Some)
    }

    fn embedding_sum(
        &self,
        tables: &[&Tensor],
        ids: &[Value],
        positions: usize,
        width: usize,
    ) -> Result<Option<Tensor>> {
        embedding::embedding_sum(tables, ids.to_vec(), positions, width).map(Some)
    }

    fn cross_entropy(
        &self,
        logits: &Tensor,
        labels: &Value,
        weights: Option<&Tensor>,
        options: CrossEntropy,
    ) -> Result<Option<Tensor>> {
        if logits.dims()[1] == 0 || weights.is_some_and(Tensor::is_tracked) {
            return Ok(None);
        }
        loss::cross_entropy(logits, labels, weights, options).map(Some)
    }

    fn binary_cross_entropy(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        weights: Option<&Tensor>,
        rows: usize,
        cols: usize,
    ) -> Result<Option<Tensor>> {
        if rows * cols == 0 || weights.is_some_and(Tensor::is_tracked) {
            return Ok(None);
        }
        loss::binary_cross_entropy(logits, targets, weights, rows, cols).map(Some)
    }

    fn pool(&self, x: &Tensor, starts: &Value, kind: Pool) -> Result<Option<Tensor>> {
        pool::pool(x, starts, kind).map(Some)
    }

    fn padding(&self, x: &Tensor, starts: &Value, padding: Padding) -> Result<Option<Tensor>> {
        padding::padding(x, starts, padding).map(Some)
    }

    fn conv1d(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        starts: &Value,
        dilation: usize,
    ) -> Result<Option<Tensor>> {
        conv::conv1d(x, weight, bias, starts, dilation).map(Some)
    }

    fn recurrent(
        &self,
        tensors: [&Tensor; 5],
        starts: &Value,
        layer: Recurrent,
    ) -> Result<Option<Tensor>> {
        if layer.rows * layer.inputs * layer.hidden == 0 {
            return Ok(None);
        }
        recurrent::recurrent(tensors, starts, layer).map(Some)
    }

    fn crf_loss(
        &self,
        tensors: [&Tensor; 4],
        tags: &Value,
        starts: &Value,
        classes: usize,
    ) -> Result<Option<Tensor>> {
        crf::loss(tensors, tags, starts, classes).map(Some)
    }

    fn store(&self, x: &Raw, add: bool, y: &Raw) -> Result<()> {
        activation::store(x, add, y)
    }

    fn scale(&self, grads: &Raw, factor: f64, parts: Ranges<'_>) -> Result<bool> {
        optim::scale(grads, factor, parts).map(|()| true)
    }

    fn square_sum(&self, grads: &Raw, parts: Ranges<'_>) -> Result<Option<f64>> {
        optim::square_sum(grads, parts).map(Some)
    }

    fn clip(&self, grads: &Raw, scale: f64, limit: f64, parts: Ranges<'_>) -> Result<Option<Raw>> {
        clip::clip(grads, scale, limit, parts).map(Some)
    }

    fn optim_step(&self, step: &Step<'_>) -> Result<bool> {
        if !optim::has(step.options.kind) {
            return Ok(false);
        }
        optim::step(step).map(|()| true)
    }

    fn narrow(&self, values: &Raw, copy: &Raw) -> Result<()> {
        mixed::convert_into(values, copy)
    }
}
