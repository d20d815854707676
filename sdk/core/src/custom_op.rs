//! Operations with code of their own, contributed by plugins through `et.op/1`.

use std::ffi::{CStr, c_void};
use std::mem::offset_of;
use std::ptr;

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::{
    ET_DEVICE_CPU, ET_DEVICE_CUDA, ET_ERR_PANIC, ET_OP_ACCEPTS_STRIDED, ET_OP_HAS_BACKWARD,
    ET_OP_HAS_CUDA, et_error, et_op_call, et_plugin_op, et_tensor, et_view,
};
use half::{bf16, f16};

use crate::device::{self, Device};
use crate::error::{Result, fail};
use crate::handle::{Handles, take_error};
use crate::storage::{self, Element, Value};
use crate::tape::{Paused, record, records};
use crate::tensor::{Tensor, dtype_code, dtype_from_code, shape_len};

/// Most axes of a tensor that a custom operation makes.
const MAX_RANK: usize = 8;

type Infer = unsafe extern "C" fn(
    *mut c_void,
    *const *const et_view,
    *mut i32,
    *mut i32,
    *const *mut i64,
) -> *mut et_error;
type Forward = unsafe extern "C" fn(*const et_op_call) -> *mut et_error;
type Backward = unsafe extern "C" fn(
    *mut c_void,
    *const *const et_tensor,
    *const *const et_tensor,
    *const *const et_tensor,
    *mut *mut et_tensor,
) -> *mut et_error;

/// What was read from a plugin's table.
#[derive(Clone)]
struct Table {
    name: String,
    flags: u32,
    inputs: usize,
    outputs: usize,
    infer: Infer,
    forward: Forward,
    backward: Option<Backward>,
}

impl Table {
    /// Reads the slots that lie within `struct_size`. Errors: `INVALID_ARGUMENT` when one that is needed is missing.
    ///
    /// # Safety
    /// `op` is NULL or points to a table whose first `struct_size` bytes are initialised.
    unsafe fn read(op: *const et_plugin_op) -> Result<Self> {
        if op.is_null() {
            fail!(ET_ERR_INVALID_ARGUMENT, "apply_op: the operation is NULL");
        }
        // SAFETY: every table begins with its size.
        let size = unsafe { (&raw const (*op).struct_size).read() };
        macro_rules! slot {
            ($field:ident) => {{
                let end = offset_of!(et_plugin_op, $field) + size_of::<Option<Forward>>();
                // SAFETY: the slot lies within the bytes that the plugin filled.
                if end <= size { unsafe { (&raw const (*op).$field).read() } } else { None }
            }};
        }
        if size < offset_of!(et_plugin_op, infer) {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "apply_op: the table has {size} bytes, too few for its head"
            );
        }
        // SAFETY: these fields lie before `infer`, so within the bytes that the plugin filled.
        let (name, flags, inputs, outputs) =
            unsafe { ((*op).name, (*op).flags, (*op).inputs_len, (*op).outputs_len) };
        let name = if name.is_null() {
            "unnamed".to_string()
        } else {
            // SAFETY: the boundary's contract: names are NUL-terminated.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        };
        let (Some(infer), Some(forward)) = (slot!(infer), slot!(forward)) else {
            fail!(ET_ERR_INVALID_ARGUMENT, "op \"{name}\": infer and forward must not be NULL");
        };
        let backward = slot!(backward);
        if flags & ET_OP_HAS_BACKWARD != 0 && backward.is_none() {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "op \"{name}\": it claims ET_OP_HAS_BACKWARD, but backward is NULL"
            );
        }
        let backward = backward.filter(|_| flags & ET_OP_HAS_BACKWARD != 0);
        Ok(Self {
            name,
            flags,
            inputs: inputs as usize,
            outputs: outputs as usize,
            infer,
            forward,
            backward,
        })
    }
}

/// The instance of an operation; the plugin says that it lives long enough and may be used from the thread that runs
/// backward.
#[derive(Clone, Copy)]
struct State(*mut c_void);

// SAFETY: the pointer is only handed back to the plugin, whose contract ([callback-thread]) is to be called on
// whichever thread runs forward or backward.
unsafe impl Send for State {}

impl State {
    fn get(self) -> *mut c_void {
        self.0
    }
}

/// Extents and strides of a view, which points to them.
struct ViewParts {
    shape: Vec<i64>,
    strides: Vec<i64>,
    dtype: i32,
}

impl ViewParts {
    fn new(tensor: &Raw) -> Result<Self> {
        Ok(Self {
            shape: tensor.dims().iter().map(|&extent| extent as i64).collect(),
            strides: tensor.stride().iter().map(|&stride| stride as i64).collect(),
            dtype: dtype_code(tensor.dtype())?,
        })
    }

    fn view(&self, data: *mut c_void) -> et_view {
        et_view {
            struct_size: size_of::<et_view>(),
            data,
            device_type: ET_DEVICE_CPU,
            device_id: 0,
            dtype: self.dtype,
            rank: self.shape.len() as i32,
            shape: self.shape.as_ptr(),
            strides: self.strides.as_ptr(),
            byte_offset: 0,
        }
    }
}

/// Turns a plugin's answer into ours.
///
/// # Safety
/// `error` is NULL or an owned error of this engine.
unsafe fn answer(name: &str, step: &str, error: *mut et_error) -> Result<()> {
    // SAFETY: the caller's contract is the same.
    let Err(error) = (unsafe { take_error(error) }) else { return Ok(()) };
    let step = if error.code == ET_ERR_PANIC { format!("{step} (panic)") } else { step.into() };
    Err(error.context(format!("op \"{name}\": {step}")))
}

/// Runs an expression with `$element` standing for the element type that `$dtype` names. Errors: `DTYPE` for types
/// that do not cross the boundary.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        with_element!($dtype, $element => $body;
            U8: u8, U32: u32, I64: i64, BF16: bf16, F16: f16, F32: f32, F64: f64)
    };
    ($dtype:expr, $element:ident => $body:expr; $($variant:ident: $type:ty),*) => {
        match $dtype {
            $(DType::$variant => {
                type $element = $type;
                $body
            })*
            other => fail!(
                ET_ERR_DTYPE,
                "elements of type {} do not cross the boundary",
                other.as_str()
            ),
        }
    };
}

/// Address of the first element of a CPU tensor. The memory stays as long as the tensor does; nobody writes to it
/// meanwhile, since values are immutable.
fn address(tensor: &Raw) -> Result<*mut c_void> {
    fn of<T: Element>(tensor: &Raw) -> Result<*mut c_void> {
        let (guard, layout) = tensor.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*guard else {
            fail!(ET_ERR_UNIMPLEMENTED, "custom operations work on CPU tensors only");
        };
        let data = T::slice(storage).unwrap_or(&[]);
        Ok(data[layout.start_offset().min(data.len())..].as_ptr().cast_mut().cast())
    }
    with_element!(tensor.dtype(), E => of::<E>(tensor))
}

/// Memory of an output while the plugin writes it: a vector of some element type.
trait Output {
    fn data(&mut self) -> *mut c_void;
    /// Errors: `SHAPE` when the elements do not fill `shape`.
    fn into_tensor(self: Box<Self>, shape: Vec<usize>) -> Result<Raw>;
}

impl<T: Element> Output for Vec<T> {
    fn data(&mut self) -> *mut c_void {
        self.as_mut_ptr().cast()
    }

    fn into_tensor(self: Box<Self>, shape: Vec<usize>) -> Result<Raw> {
        storage::tensor_from_vec(*self, shape)
    }
}

/// Memory for `len` elements with arbitrary values.
fn output(dtype: DType, len: usize) -> Result<Box<dyn Output>> {
    Ok(with_element!(dtype, E => Box::new(storage::take::<E>(len))))
}

/// Asks the plugin for types and shapes of the outputs.
fn infer(table: &Table, state: State, parts: &[ViewParts]) -> Result<Vec<(DType, Vec<usize>)>> {
    let name = &table.name;
    let views: Vec<et_view> = parts.iter().map(|part| part.view(ptr::null_mut())).collect();
    let pointers: Vec<*const et_view> = views.iter().map(ptr::from_ref).collect();
    let (mut dtypes, mut ranks) = (vec![0i32; table.outputs], vec![-1i32; table.outputs]);
    let mut extents = vec![[0i64; MAX_RANK]; table.outputs];
    let rows: Vec<*mut i64> = extents.iter_mut().map(|row| row.as_mut_ptr()).collect();
    // SAFETY: all arrays have the lengths that the interface promises and outlive the call.
    let error = unsafe {
        (table.infer)(
            state.get(),
            pointers.as_ptr(),
            dtypes.as_mut_ptr(),
            ranks.as_mut_ptr(),
            rows.as_ptr(),
        )
    };
    // SAFETY: plugins return errors made by this engine.
    unsafe { answer(name, "infer", error) }?;
    let mut outputs = Vec::with_capacity(table.outputs);
    for (index, (&dtype, &rank)) in dtypes.iter().zip(&ranks).enumerate() {
        let Some(extents) = usize::try_from(rank).ok().and_then(|rank| extents[index].get(..rank))
        else {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "op \"{name}\": infer set rank {rank} for output {index}, expected 0 to {MAX_RANK}"
            );
        };
        let Ok(shape) =
            extents.iter().map(|&e| usize::try_from(e)).collect::<std::result::Result<Vec<_>, _>>()
        else {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "op \"{name}\": infer set the shape {extents:?} for output {index}, expected no negative extent"
            );
        };
        shape_len(name, &shape)?;
        let dtype = dtype_from_code(dtype)
            .map_err(|error| error.context(format!("op \"{name}\": output {index}")))?;
        outputs.push((dtype, shape));
    }
    Ok(outputs)
}

/// Calls the plugin's code on host memory; tensors on a card are copied for it.
fn forward_on_host(table: &Table, state: State, values: &[Value]) -> Result<Vec<Raw>> {
    let hosts = values
        .iter()
        .map(|value| device::to_host(Raw::clone(value)).map(Value::new))
        .collect::<Result<Vec<Value>>>()?;
    let parts = hosts.iter().map(|v| ViewParts::new(v)).collect::<Result<Vec<_>>>()?;
    let shapes = infer(table, state, &parts)?;
    let mut outputs = Vec::with_capacity(shapes.len());
    let mut output_parts = Vec::with_capacity(shapes.len());
    for (dtype, shape) in &shapes {
        outputs.push(output(*dtype, shape.iter().product())?);
        let mut strides = vec![1i64; shape.len()];
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * shape[axis + 1] as i64;
        }
        output_parts.push(ViewParts {
            shape: shape.iter().map(|&extent| extent as i64).collect(),
            strides,
            dtype: dtype_code(*dtype)?,
        });
    }
    {
        let mut in_views = Vec::with_capacity(parts.len());
        for (part, value) in parts.iter().zip(&hosts) {
            in_views.push(part.view(address(value)?));
        }
        let out_views: Vec<et_view> = output_parts
            .iter()
            .zip(&mut outputs)
            .map(|(part, out)| part.view(out.data()))
            .collect();
        // SAFETY: the views describe live memory of `values` and `outputs`.
        unsafe { call_forward(table, state, &in_views, &out_views, ptr::null_mut()) }?;
    }
    outputs.into_iter().zip(shapes).map(|(output, (_, shape))| output.into_tensor(shape)).collect()
}

/// Calls the plugin's forward function. Errors: the plugin's.
///
/// # Safety
/// The views describe memory that the plugin may read (inputs) and write (outputs): that of the host when `stream` is
/// NULL, else that of the stream's card.
unsafe fn call_forward(
    table: &Table,
    state: State,
    inputs: &[et_view],
    outputs: &[et_view],
    stream: *mut c_void,
) -> Result<()> {
    let inputs: Vec<*const et_view> = inputs.iter().map(ptr::from_ref).collect();
    let outputs: Vec<*const et_view> = outputs.iter().map(ptr::from_ref).collect();
    let call = et_op_call {
        struct_size: size_of::<et_op_call>(),
        state: state.get(),
        inputs: inputs.as_ptr(),
        inputs_len: inputs.len(),
        outputs: outputs.as_ptr(),
        outputs_len: outputs.len(),
        stream,
    };
    // SAFETY: the views are what this function demands, and all arrays outlive the call.
    let error = unsafe { (table.forward)(&call) };
    // SAFETY: plugins return errors made by this engine.
    unsafe { answer(&table.name, "forward", error) }
}

/// Calls the plugin's code on the device's memory, with the stream on which it must put its work. What lives in host
/// memory, such as integers, is copied to the device for it.
fn forward_on_device(
    device: &dyn Device,
    table: &Table,
    state: State,
    values: &[Value],
) -> Result<Vec<Raw>> {
    let values = values.iter().map(|value| match device.holds(value) {
        true => Ok(value.clone()),
        false => device.upload(value).map(Value::new),
    });
    let values = &values.collect::<Result<Vec<Value>>>()?;
    let parts = values.iter().map(|v| ViewParts::new(v)).collect::<Result<Vec<_>>>()?;
    let outputs = infer(table, state, &parts)?
        .into_iter()
        .map(|(dtype, shape)| device.empty(dtype, &shape))
        .collect::<Result<Vec<Raw>>>()?;
    let output_parts = outputs.iter().map(ViewParts::new).collect::<Result<Vec<_>>>()?;
    let view = |part: &ViewParts, tensor: &Raw| -> Result<et_view> {
        let data = device.address(tensor)? as *mut c_void;
        let (device_type, device_id) = (device.kind(), device.number());
        Ok(et_view { device_type, device_id, ..part.view(data) })
    };
    let inputs = parts.iter().zip(values).map(|(part, value)| view(part, value));
    let inputs = inputs.collect::<Result<Vec<et_view>>>()?;
    let results = output_parts.iter().zip(&outputs).map(|(part, value)| view(part, value));
    let results = results.collect::<Result<Vec<et_view>>>()?;
    let stream = device.stream()?;
    // SAFETY: the views describe memory of `values` and `outputs`, which is freed in the order of the stream.
    unsafe { call_forward(table, state, &inputs, &results, stream) }?;
    // Types that live in host memory go there.
    outputs.into_iter().map(device::at_home).collect()
}

/// Runs a custom operation and records it.
///
/// # Errors
/// `INVALID_ARGUMENT` when the table lacks a slot, the number of inputs is wrong or `infer` answers nonsense;
/// whatever the plugin's functions return.
///
/// # Safety
/// `op` is NULL or a plugin's table, whose functions fulfil their contract for `state`; `state` outlives the outputs.
pub unsafe fn apply(
    op: *const et_plugin_op,
    state: *mut c_void,
    inputs: &[&Tensor],
) -> Result<Vec<Tensor>> {
    // SAFETY: the caller's contract is the same.
    let table = unsafe { Table::read(op) }?;
    let state = State(state);
    let name = table.name.clone();
    if inputs.len() != table.inputs {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "op \"{name}\": expected {} inputs, found {}",
            table.inputs,
            inputs.len()
        );
    }
    inputs.iter().try_for_each(|input| input.widen())?;
    let strided = table.flags & ET_OP_ACCEPTS_STRIDED != 0;
    let values = inputs
        .iter()
        .map(|input| if strided { Ok(input.save()) } else { super::nn::dense(input.value()) })
        .collect::<Result<Vec<Value>>>()?;
    let own =
        |device: &&dyn Device| device.kind() == ET_DEVICE_CUDA && table.flags & ET_OP_HAS_CUDA != 0;
    let outputs = match values.iter().find_map(|value| device::of(value)).filter(own) {
        Some(device) => forward_on_device(device, &table, state, &values)?,
        None => forward_on_host(&table, state, &values)?,
    };
    let Some(backward) = table.backward else {
        // Without a backward function the outputs are constants.
        return Ok(outputs.into_iter().map(Tensor::new).collect());
    };
    if !records(inputs) {
        return Ok(outputs.into_iter().map(Tensor::new).collect());
    }
    let saved_outputs: Vec<Value> = outputs.iter().cloned().map(Value::new).collect();
    Ok(record("custom_op", inputs, outputs, move |pass| {
        let grads: Vec<Option<Value>> = (0..saved_outputs.len()).map(|i| pass.grad(i)).collect();
        let grads = call_backward(&name, backward, state, &values, &saved_outputs, grads)?;
        for (index, (grad, value)) in grads.into_iter().zip(&values).enumerate() {
            let Some(grad) = grad else { continue };
            if grad.dims() != value.dims() || grad.dtype() != value.dtype() {
                fail!(
                    ET_ERR_SHAPE,
                    "op \"{name}\": the gradient of input {index} must be {:?} of {}, found {:?} of {}",
                    value.dims(),
                    value.dtype().as_str(),
                    grad.dims(),
                    grad.dtype().as_str()
                );
            }
            pass.give(index, grad.save())?;
        }
        Ok(())
    }))
}

fn call_backward(
    name: &str,
    backward: Backward,
    state: State,
    inputs: &[Value],
    outputs: &[Value],
    grads: Vec<Option<Value>>,
) -> Result<Vec<Option<Tensor>>> {
    let of = |values: &[Value]| {
        Handles::of(values.iter().map(|value| Some(Tensor::new(Raw::clone(value)))))
    };
    let (inputs, outputs) = (of(inputs), of(outputs));
    let grads =
        Handles::of(grads.into_iter().map(|grad| grad.map(|grad| Tensor::new(grad.into_inner()))));
    let (ins, outs, gs) = (inputs.lent(), outputs.lent(), grads.lent());
    let mut results = Handles::room(ins.len());
    let _paused = Paused::new();
    // SAFETY: all arrays have the lengths that the interface promises and outlive the call.
    let error = unsafe {
        backward(state.get(), ins.as_ptr(), outs.as_ptr(), gs.as_ptr(), results.as_mut_ptr())
    };
    // SAFETY: plugins return errors made by this engine.
    unsafe { answer(name, "backward", error) }?;
    // SAFETY: the plugin gave references to us.
    unsafe { results.tensors() }.collect()
}
