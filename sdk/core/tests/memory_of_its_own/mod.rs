//! A device without a card. Its memory is a table of bytes of its own; what candle holds of such a tensor is a ticket
//! of 16 bytes, whatever the shape says. So nothing computes on these tensors that does not go through the device:
//! candle's own arithmetic finds no elements and panics.
//!
//! It declines every operation and counts it, except while [`Own`] lives: then it computes a few itself.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Storage, Tensor as Raw};
use easytransfer_core::data::Map;
use easytransfer_core::device::{Device, Mark, Norm, Padding, Ranges, Recurrent, Step};
use easytransfer_core::error::Result;
use easytransfer_core::storage::{self, Element, Value};
use easytransfer_core::tape::{Pass, record_narrow};
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::activation::Activation;
use easytransfer_kernels::attention::AttentionShape;
use easytransfer_kernels::cross_entropy::CrossEntropy;
use easytransfer_kernels::elementwise::{self, Store};
use easytransfer_kernels::linear::{LinearShape, linear_backward_products, linear_forward};
use easytransfer_kernels::optim::adam::{Adam, adamw};
use easytransfer_kernels::padding::Pool;
use easytransfer_kernels::philox::Dropout;
use half::bf16;

const MAGIC: i64 = 0x7ed6_11ce_0d0f_ca4d;
const TICKET: usize = 16;

pub struct Tickets {
    /// Bytes by the tickets' numbers; never given back.
    memory: Mutex<HashMap<i64, Vec<u8>>>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

pub static DEVICE: std::sync::LazyLock<Tickets> =
    std::sync::LazyLock::new(|| Tickets { memory: Mutex::default(), counts: Mutex::default() });

thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, the device computes linear layers without activation, steps of AdamW, clipping and sums of squares
/// itself on this thread.
pub struct Own(());

impl Own {
    pub fn new() -> Self {
        OWN.set(true);
        Self(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        OWN.set(false);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes_of<T: Element>(data: &[T]) -> Vec<u8> {
    // SAFETY: elements are numbers without padding.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }.to_vec()
}

fn elements<T: Element>(bytes: &[u8]) -> Vec<T> {
    let mut data = vec![T::default(); bytes.len() / size_of::<T>()];
    // SAFETY: as many bytes, and all bits are numbers.
    unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast::<u8>(), bytes.len()) }
        .copy_from_slice(bytes);
    data
}

/// Runs `$body` with `$type` being the type of elements that `$dtype` names.
macro_rules! typed {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $type = f32;
                $body
            }
            DType::BF16 => {
                type $type = bf16;
                $body
            }
            DType::F16 => {
                type $type = half::f16;
                $body
            }
            DType::U8 => {
                type $type = u8;
                $body
            }
            other => panic!("no tensors of {other:?} here"),
        }
    };
}

/// The bytes behind a tensor if they could be a ticket.
fn ticket(x: &Raw) -> Option<i64> {
    let (guard, _) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*guard else { return None };
    let bytes = match storage {
        CpuStorage::F32(data) if data.len() * 4 == TICKET => bytes_of(data),
        CpuStorage::BF16(data) if data.len() * 2 == TICKET => bytes_of(data),
        CpuStorage::F16(data) if data.len() * 2 == TICKET => bytes_of(data),
        CpuStorage::U8(data) if data.len() == TICKET => bytes_of(data),
        _ => return None,
    };
    let [magic, number] = elements::<i64>(&bytes)[..] else { return None };
    (magic == MAGIC).then_some(number)
}

impl Tickets {
    pub fn count(&self, what: &'static str) {
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    /// What was counted since the last call.
    pub fn counted(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut lock(&self.counts))
    }

    fn declined<T>(&self, what: &'static str) -> Result<Option<T>> {
        self.count(what);
        Ok(None)
    }

    /// A tensor over these bytes.
    fn new_tensor(&self, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Raw {
        let mut memory = lock(&self.memory);
        let number = memory.len() as i64;
        memory.insert(number, bytes);
        let ticket = [MAGIC.to_ne_bytes(), number.to_ne_bytes()].concat();
        let storage = typed!(dtype, T => T::wrap(elements::<T>(&ticket)));
        Raw::from_storage(Storage::Cpu(storage), shape.to_vec(), BackpropOp::none(), false)
    }

    fn put(&self, shape: &[usize], data: &[f32]) -> Raw {
        self.new_tensor(DType::F32, shape, bytes_of(data))
    }

    /// The elements of a tensor, wherever it is.
    fn get<T: Element>(&self, x: &Raw) -> Vec<T> {
        assert_eq!(x.dtype(), T::DTYPE);
        let Some(number) = ticket(x) else {
            return storage::with::<T, _>(x, <[T]>::to_vec).expect("a contiguous tensor");
        };
        let data = elements::<T>(&lock(&self.memory)[&number]);
        // Row-major, whatever the strides are.
        let mut places = vec![x.layout().start_offset()];
        for (&extent, &step) in x.dims().iter().zip(x.stride()) {
            let each = |&at: &usize| (0..extent).map(move |i| at + i * step);
            places = places.iter().flat_map(each).collect();
        }
        places.into_iter().map(|at| data[at]).collect()
    }

    fn set<T: Element>(&self, x: &Raw, data: &[T]) {
        let number = ticket(x).expect("a tensor of this device");
        let (start, end) = x.layout().contiguous_offsets().expect("a contiguous tensor");
        assert_eq!((x.dtype(), end - start), (T::DTYPE, data.len()));
        let size = size_of::<T>();
        lock(&self.memory).get_mut(&number).expect("its memory")[start * size..end * size]
            .copy_from_slice(&bytes_of(data));
    }

    /// Gives a gradient: into the arena where the input is a parameter, else as a new tensor.
    fn give(&self, pass: &mut Pass<'_>, index: usize, shape: &[usize], data: &[f32]) -> Result<()> {
        let written = pass.leaf_view(index, &mut |view, first| {
            self.count("written in place");
            self.store(&self.put(shape, data), !first, view)
        })?;
        if written { Ok(()) } else { pass.give(index, self.put(shape, data)) }
    }

    fn own_linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (rows, inputs, outputs) = (x.dims()[0], x.dims()[1], weight.dims()[0]);
        let shape = LinearShape { rows, inputs, outputs, bf16: false };
        let (vx, vw) = (self.get::<f32>(x.stored()), self.get::<f32>(weight.stored()));
        let vb = bias.map(|bias| self.get::<f32>(bias.stored()));
        let mut y = vec![0.0; rows * outputs];
        linear_forward(shape, &vx, &vw, vb.as_deref(), Activation::None, &mut y, None)?;
        let mut tracked = vec![x, weight];
        tracked.extend(bias);
        let y = self.put(&[rows, outputs], &y);
        Ok(record_narrow("linear", &tracked, y, move |pass| {
            let Some(grad) = pass.grad(0) else { return Ok(()) };
            let dy = DEVICE.get::<f32>(&grad);
            let (mut dx, mut dw) = (vec![0.0; rows * inputs], vec![0.0; outputs * inputs]);
            let into = (Some((Store::Write, &mut dx[..])), Some((Store::Write, &mut dw[..])));
            linear_backward_products(shape, &vx, &vw, &dy, into.0, into.1)?;
            let mut db = vec![0.0; outputs];
            elementwise::column_sum(&dy, Store::Write, &mut db)?;
            DEVICE.give(pass, 2, &[outputs], &db)?;
            DEVICE.give(pass, 1, &[outputs, inputs], &dw)?;
            DEVICE.give(pass, 0, &[rows, inputs], &dx)
        }))
    }
}

impl Device for Tickets {
    fn kind(&self) -> i32 {
        -1
    }

    fn report(&self) -> String {
        "{\"device\": \"tickets\"}".to_owned()
    }

    fn holds(&self, x: &Raw) -> bool {
        ticket(x).is_some()
    }

    fn is_home(&self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::BF16 | DType::F16 | DType::U8)
    }

    fn empty(&self, dtype: DType, shape: &[usize]) -> Result<Raw> {
        let len = shape.iter().product::<usize>() * dtype.size_in_bytes();
        // NaN: whoever reads what was never written is found out.
        Ok(self.new_tensor(dtype, shape, vec![0xff; len]))
    }

    fn upload(&self, x: &Raw) -> Result<Raw> {
        let bytes = typed!(x.dtype(), T => bytes_of(&self.get::<T>(&x.contiguous()?)));
        Ok(self.new_tensor(x.dtype(), x.dims(), bytes))
    }

    fn download(&self, x: &Raw) -> Result<Raw> {
        let storage = typed!(x.dtype(), T => T::wrap(self.get::<T>(x)));
        let shape = x.dims().to_vec();
        Ok(Raw::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), false))
    }

    fn overwrite(&self, x: &Raw, host: &Raw) -> Result<()> {
        typed!(x.dtype(), T => self.set::<T>(x, &self.get::<T>(host)));
        Ok(())
    }

    fn recycle(&self, x: Raw) {
        self.count("recycle");
        drop(x);
    }

    fn end_step(&self) {
        self.count("end_step");
    }

    fn prefetch(&self, _batch: &Map) -> Result<()> {
        self.count("prefetch");
        Ok(())
    }

    fn fell_back(&self, _place: &'static str) {
        self.count("fell back");
    }

    fn mark(&self) -> Option<Mark> {
        self.count("mark");
        Some(Box::new(()))
    }

    fn between(&self, _begin: &Mark, _end: &Mark) -> f64 {
        1.0
    }

    fn linear(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Option<Tensor>> {
        self.count("linear");
        if !OWN.get() || activation != Activation::None {
            return Ok(None);
        }
        self.own_linear(x, weight, bias).map(Some)
    }

    fn activate(&self, _: &'static str, _: Activation, _: &Tensor) -> Result<Option<Tensor>> {
        self.declined("activate")
    }

    fn dropout(&self, _: &Tensor, _: Dropout) -> Result<Option<Tensor>> {
        self.declined("dropout")
    }

    fn norm(&self, norm: Norm<'_>) -> Result<Option<Tensor>> {
        self.declined(if norm.beta.is_some() { "layer norm" } else { "rms norm" })
    }

    fn softmax(&self, _: &Tensor, log: bool) -> Result<Option<Tensor>> {
        self.declined(if log { "log_softmax" } else { "softmax" })
    }

    fn attention(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: AttentionShape<'_>,
        _: Option<Dropout>,
    ) -> Result<Option<Tensor>> {
        self.declined("attention")
    }

    fn embedding_sum(
        &self,
        _: &[&Tensor],
        _: &[Value],
        _: usize,
        _: usize,
    ) -> Result<Option<Tensor>> {
        self.declined("embedding_sum")
    }

    fn cross_entropy(
        &self,
        _: &Tensor,
        _: &Value,
        _: Option<&Tensor>,
        _: CrossEntropy,
    ) -> Result<Option<Tensor>> {
        self.declined("cross_entropy")
    }

    fn binary_cross_entropy(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: Option<&Tensor>,
        _: usize,
        _: usize,
    ) -> Result<Option<Tensor>> {
        self.declined("binary_cross_entropy")
    }

    fn pool(&self, _: &Tensor, _: &Value, _: Pool) -> Result<Option<Tensor>> {
        self.declined("pool")
    }

    fn padding(&self, _: &Tensor, _: &Value, padding: Padding) -> Result<Option<Tensor>> {
        self.declined(if padding.pad { "to_padded" } else { "from_padded" })
    }

    fn conv1d(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: Option<&Tensor>,
        _: &Value,
        _: usize,
    ) -> Result<Option<Tensor>> {
        self.declined("conv1d")
    }

    fn recurrent(&self, _: [&Tensor; 5], _: &Value, layer: Recurrent) -> Result<Option<Tensor>> {
        self.declined(if layer.gates == 4 { "lstm" } else { "gru" })
    }

    fn crf_loss(&self, _: [&Tensor; 4], _: &Value, _: &Value, _: usize) -> Result<Option<Tensor>> {
        self.declined("crf_loss")
    }

    fn store(&self, x: &Raw, add: bool, y: &Raw) -> Result<()> {
        self.count("store");
        let mut data = self.get::<f32>(x);
        if add {
            elementwise::add_assign(&mut data, &self.get::<f32>(y))?;
        }
        self.set(y, &data);
        Ok(())
    }

    fn scale(&self, grads: &Raw, factor: f64, parts: Ranges<'_>) -> Result<bool> {
        self.count("scale");
        if OWN.get() {
            let mut data = self.get::<f32>(grads);
            for &(start, len) in parts {
                elementwise::scale(factor as f32, &mut data[start..start + len]);
            }
            self.set(grads, &data);
        }
        Ok(OWN.get())
    }

    fn square_sum(&self, grads: &Raw, parts: Ranges<'_>) -> Result<Option<f64>> {
        self.count("square_sum");
        let data = self.get::<f32>(grads);
        let part =
            |&(start, len): &(usize, usize)| elementwise::square_sum(&data[start..start + len]);
        Ok(OWN.get().then(|| parts.iter().map(part).sum()))
    }

    fn clip(&self, grads: &Raw, scale: f64, limit: f64, parts: Ranges<'_>) -> Result<Option<Raw>> {
        self.count("clip");
        if !OWN.get() {
            return Ok(None);
        }
        let norm = self.square_sum(grads, parts)?.expect("its own").sqrt() * scale;
        if norm > limit {
            self.scale(grads, limit / (norm + 1e-6), parts)?;
        }
        Ok(Some(storage::tensor_from_vec(vec![norm], ())?))
    }

    fn optim_step(&self, step: &Step<'_>) -> Result<bool> {
        self.count("optim_step");
        let (true, [first, second]) = (OWN.get(), step.states) else { return Ok(false) };
        let options = step.options;
        let op = Adam {
            lr: options.lr,
            beta1: options.beta1,
            beta2: options.beta2,
            eps: options.epsilon,
            step: options.step,
            grad_scale: step.grad_scale,
        };
        let grads = self.get::<f32>(step.grads);
        let [mut p, mut m, mut v] = [step.values, first, second].map(|x| self.get::<f32>(x));
        adamw(op, step.segments, &grads, &mut p, &mut m, &mut v)?;
        for (x, data) in [(step.values, &p), (first, &m), (second, &v)] {
            self.set(x, data);
        }
        for copy in step.copies {
            self.count("copy written along");
            self.set(copy, &p.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
        }
        Ok(true)
    }

    fn narrow(&self, values: &Raw, copy: &Raw) -> Result<()> {
        self.count("narrow");
        let narrow: Vec<bf16> = self.get::<f32>(values).into_iter().map(bf16::from_f32).collect();
        self.set(copy, &narrow);
        Ok(())
    }
}
