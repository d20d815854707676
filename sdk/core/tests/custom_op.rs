//! A custom operation with four inputs and two outputs, written as a C plugin would, and what becomes of its mistakes.
#![allow(
    clippy::macro_metavars_in_unsafe,
    reason = "the macro calls a slot of a table with arguments that each test vouches for"
)]
#![allow(unused_unsafe, reason = "the macro `call` is used inside unsafe blocks too")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "the handles are owned by `T`, whose contract all calls keep"
)]

mod common;

use std::ffi::c_void;
use std::ptr;

use common::{Failure, T, autograd, check_gradients, done, f64s, host, live, noise, tensor};
use easytransfer_abi::*;

unsafe fn data<'a>(view: *const et_view) -> &'a mut [f64] {
    unsafe {
        let view = &*view;
        assert_eq!((view.dtype, view.device_type), (ET_DTYPE_F64, ET_DEVICE_CPU));
        let len: i64 = (0..view.rank as usize).map(|axis| *view.shape.add(axis)).product();
        let first = view.data.cast::<u8>().add(view.byte_offset).cast::<f64>();
        if len == 0 { &mut [] } else { std::slice::from_raw_parts_mut(first, len as usize) }
    }
}

fn refuse(code: i32, text: &str) -> *mut et_error {
    unsafe {
        host().error_new.unwrap()(code, et_str { ptr: text.as_ptr().cast(), len: text.len() })
    }
}

/// Outputs: state * a b + c, and a - d.
unsafe extern "C" fn infer(
    _state: *mut c_void,
    inputs: *const *const et_view,
    dtypes: *mut i32,
    ranks: *mut i32,
    shapes: *const *mut i64,
) -> *mut et_error {
    unsafe {
        let first = &**inputs;
        assert!(first.data.is_null());
        if first.dtype != ET_DTYPE_F64 {
            return refuse(ET_ERR_DTYPE, "only f64");
        }
        for output in 0..2 {
            *dtypes.add(output) = first.dtype;
            *ranks.add(output) = first.rank;
            for axis in 0..first.rank as usize {
                *(*shapes.add(output)).add(axis) = *first.shape.add(axis);
            }
        }
    }
    ptr::null_mut()
}

unsafe extern "C" fn forward(call: *const et_op_call) -> *mut et_error {
    unsafe {
        let call = &*call;
        assert_eq!((call.inputs_len, call.outputs_len), (4, 2));
        let factor = *call.state.cast::<f64>();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| data(*call.inputs.add(i)));
        let (y, z) = (data(*call.outputs), data(*call.outputs.add(1)));
        for i in 0..a.len() {
            y[i] = factor * a[i] * b[i] + c[i];
            z[i] = a[i] - d[i];
        }
    }
    ptr::null_mut()
}

unsafe extern "C" fn backward(
    state: *mut c_void,
    inputs: *const *const et_tensor,
    outputs: *const *const et_tensor,
    output_grads: *const *const et_tensor,
    input_grads: *mut *mut et_tensor,
) -> *mut et_error {
    unsafe {
        assert_eq!(autograd().is_recording.unwrap()(), 0);
        assert_eq!(tensor().len.unwrap()(*outputs), tensor().len.unwrap()(*inputs));
        let (binary, affine) = (tensor().binary.unwrap(), tensor().affine.unwrap());
        let factor = *state.cast::<f64>();
        let (gy, gz) = (*output_grads, *output_grads.add(1));
        let mut da: *mut et_tensor = ptr::null_mut();
        if !gy.is_null() {
            let scaled = call!(tensor().affine, gy, factor, 0.0).unwrap();
            assert!(binary(ET_BINARY_MUL, scaled.0, *inputs.add(1), &mut da).is_null());
            assert!(binary(ET_BINARY_MUL, scaled.0, *inputs, input_grads.add(1)).is_null());
            *input_grads.add(2) = tensor().retain.unwrap()(gy);
        }
        if !gz.is_null() {
            if da.is_null() {
                da = tensor().retain.unwrap()(gz);
            } else {
                let first = T(da);
                assert!(binary(ET_BINARY_ADD, first.0, gz, &mut da).is_null());
            }
            assert!(affine(gz, -1.0, 0.0, input_grads.add(3)).is_null());
        }
        *input_grads = da;
    }
    ptr::null_mut()
}

const OP: et_plugin_op = et_plugin_op {
    struct_size: size_of::<et_plugin_op>(),
    name: c"blend".as_ptr(),
    flags: ET_OP_HAS_BACKWARD,
    inputs_len: 4,
    outputs_len: 2,
    reserved: 0,
    infer: Some(infer),
    forward: Some(forward),
    backward: Some(backward),
};

fn apply(op: &et_plugin_op, factor: &mut f64, inputs: &[&T]) -> Result<Vec<T>, Failure> {
    let handles: Vec<*const et_tensor> = inputs.iter().map(|x| x.0.cast_const()).collect();
    let mut outputs = vec![ptr::null_mut(); op.outputs_len as usize];
    done(unsafe {
        autograd().apply_op.unwrap()(
            op,
            ptr::from_mut(factor).cast(),
            handles.as_ptr(),
            handles.len(),
            outputs.as_mut_ptr(),
        )
    })?;
    Ok(outputs.into_iter().map(T).collect())
}

fn some(shape: &[usize], seed: u64) -> T {
    f64s(shape, &noise(shape.iter().product(), seed))
}

// One test, since it watches the number of live handles of the whole process.
#[test]
fn a_custom_operation_behaves_like_any_other() {
    let before = live();
    values_and_gradients();
    one_output_alone();
    mistakes();
    assert_eq!(live(), before);
}

fn values_and_gradients() {
    let mut factor = 2.0;
    let inputs = [1, 2, 3, 4].map(|seed| some(&[2, 3], seed).strided());
    let outputs = apply(&OP, &mut factor, &inputs.iter().collect::<Vec<_>>()).unwrap();
    let [a, b, c, d] = inputs.each_ref().map(T::values);
    for i in 0..6 {
        assert_eq!(outputs[0].values()[i], 2.0 * a[i] * b[i] + c[i]);
        assert_eq!(outputs[1].values()[i], a[i] - d[i]);
    }
    assert!(!outputs[0].is_tracked());
    let none = some(&[0, 3], 1);
    let outputs = apply(&OP, &mut factor, &[&none, &none, &none, &none]).unwrap();
    assert_eq!(outputs[1].shape(), [0, 3]);
    // The plugin's code knows f64 only, so casts surround it.
    let shape: &[usize] = &[2, 3];
    let data: Vec<_> = (1..5).map(|seed| (shape, noise(6, seed))).collect();
    check_gradients("blend", &data, |x| {
        let dtype = x[0].dtype();
        let wide: Vec<T> = x.iter().map(|x| x.cast(ET_DTYPE_F64)).collect();
        let mut outputs = apply(&OP, Box::leak(Box::new(1.5)), &wide.iter().collect::<Vec<_>>())?;
        let z = outputs.pop().unwrap();
        let y = outputs.pop().unwrap();
        Ok(call!(tensor().binary, ET_BINARY_MUL, y.0, z.0)?.cast(dtype))
    });
}

fn one_output_alone() {
    let mut factor = 1.0;
    let leaves = [1, 2, 3, 4].map(|seed| some(&[2], seed).leaf());
    let outputs = apply(&OP, &mut factor, &leaves.iter().collect::<Vec<_>>()).unwrap();
    let seed = f64s(&[2], &[1.0, 2.0]);
    outputs[1].backward_from(&seed).unwrap();
    assert_eq!(leaves[0].grad().unwrap().values(), [1.0, 2.0]);
    assert!(leaves[1].grad().is_none() && leaves[2].grad().is_none());
    assert_eq!(leaves[3].grad().unwrap().values(), [-1.0, -2.0]);
    assert_eq!(outputs[0].backward_from(&seed).unwrap_err().0, ET_ERR_FAILED_PRECONDITION);
}

unsafe extern "C" fn failing_forward(_call: *const et_op_call) -> *mut et_error {
    refuse(ET_ERR_OUT_OF_MEMORY, "no room")
}

unsafe extern "C" fn failing_backward(
    _state: *mut c_void,
    inputs: *const *const et_tensor,
    _outputs: *const *const et_tensor,
    _output_grads: *const *const et_tensor,
    input_grads: *mut *mut et_tensor,
) -> *mut et_error {
    // What was written before the failure must not leak.
    unsafe { *input_grads = tensor().retain.unwrap()(*inputs) };
    refuse(ET_ERR_CANCELLED, "enough")
}

unsafe extern "C" fn wrong_backward(
    _state: *mut c_void,
    _inputs: *const *const et_tensor,
    _outputs: *const *const et_tensor,
    _output_grads: *const *const et_tensor,
    input_grads: *mut *mut et_tensor,
) -> *mut et_error {
    let wrong = f64s(&[7], &[0.0; 7]);
    unsafe { *input_grads = tensor().retain.unwrap()(wrong.0) };
    ptr::null_mut()
}

unsafe extern "C" fn silent_infer(
    _state: *mut c_void,
    _inputs: *const *const et_view,
    _dtypes: *mut i32,
    _ranks: *mut i32,
    _shapes: *const *mut i64,
) -> *mut et_error {
    ptr::null_mut()
}

fn mistakes() {
    let mut factor = 1.0;
    let x = some(&[2], 1);
    let four = [&x, &x, &x, &x];
    let mut expect = |op: et_plugin_op, inputs: &[&T], code: i32, words: &str| {
        let Failure(found, message) = apply(&op, &mut factor, inputs).err().expect("an error");
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
    };
    expect(OP, &four[..3], ET_ERR_INVALID_ARGUMENT, "expected 4 inputs, found 3");
    expect(et_plugin_op { forward: None, ..OP }, &four, ET_ERR_INVALID_ARGUMENT, "\"blend\"");
    expect(
        et_plugin_op { backward: None, ..OP },
        &four,
        ET_ERR_INVALID_ARGUMENT,
        "backward is NULL",
    );
    let short = std::mem::offset_of!(et_plugin_op, backward);
    expect(
        et_plugin_op { struct_size: short, ..OP },
        &four,
        ET_ERR_INVALID_ARGUMENT,
        "backward is NULL",
    );
    expect(et_plugin_op { struct_size: 8, ..OP }, &four, ET_ERR_INVALID_ARGUMENT, "8 bytes");
    expect(
        et_plugin_op { infer: Some(silent_infer), ..OP },
        &four,
        ET_ERR_INVALID_ARGUMENT,
        "rank -1",
    );
    let failing = et_plugin_op { forward: Some(failing_forward), ..OP };
    expect(failing, &four, ET_ERR_OUT_OF_MEMORY, "op \"blend\": forward: no room");
    let narrow = x.cast(ET_DTYPE_F32);
    expect(OP, &[&narrow, &x, &x, &x], ET_ERR_DTYPE, "infer: only f64");
    let null = done(unsafe {
        autograd().apply_op.unwrap()(ptr::null(), ptr::null_mut(), ptr::null(), 0, ptr::null_mut())
    });
    assert_eq!(null.unwrap_err().0, ET_ERR_INVALID_ARGUMENT);

    let leaf = x.leaf();
    let leaves = [&leaf, &leaf, &leaf, &leaf];
    let seed = f64s(&[2], &[1.0; 2]);
    for (backward, code, words) in [
        (failing_backward as unsafe extern "C" fn(_, _, _, _, _) -> _, ET_ERR_CANCELLED, "enough"),
        (wrong_backward, ET_ERR_SHAPE, "input 0"),
    ] {
        let op = et_plugin_op { backward: Some(backward), ..OP };
        let outputs = apply(&op, &mut factor, &leaves).unwrap();
        let error = outputs[0].backward_from(&seed).unwrap_err();
        assert!(error.0 == code && error.1.contains(words), "{error:?}");
    }
    let constant = et_plugin_op { flags: 0, backward: None, ..OP };
    assert!(!apply(&constant, &mut factor, &leaves).unwrap()[0].is_tracked());
}
