//! Tensors of f32 whose elements are kept in bfloat16 or half precision, as a card's fused operations make them in
//! mixed precision. Whoever does not know sees f32: here on the CPU, where nobody knows.

use candle_core::{DType, Device, Tensor as Raw};
use easytransfer_abi::{ET_BINARY_ADD, ET_BINARY_MUL, ET_BINARY_SUB, ET_DTYPE_F32, ET_REDUCE_SUM};
use easytransfer_core::nn::linear::linear;
use easytransfer_core::nn::loss::cross_entropy;
use easytransfer_core::ops::{binary::binary, create, reduce::reduce, shape, unary};
use easytransfer_core::tape::{backward, record_narrow};
use easytransfer_core::tensor::{Tensor, dtype_code};
use easytransfer_kernels::activation::Activation;

const VALUES: [f32; 6] = [0.1, -1.7, 3.3, 1e-3, 200.5, -0.26];

fn raw(values: &[f32], dims: &[usize]) -> Raw {
    Raw::from_vec(values.to_vec(), dims.to_vec(), &Device::Cpu).unwrap()
}

fn narrow(dtype: DType, values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::narrow(raw(values, dims).to_dtype(dtype).unwrap())
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.value().flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

/// What `values` are after they were kept in `dtype`.
fn rounded(dtype: DType, values: &[f32]) -> Vec<f32> {
    let kept = raw(values, &[values.len()]).to_dtype(dtype).unwrap();
    kept.to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

#[test]
fn narrow_tensors_are_f32_to_readers() {
    for dtype in [DType::BF16, DType::F16] {
        let x = narrow(dtype, &VALUES, &[2, 3]);
        assert!(x.is_narrow() && x.stored().dtype() == dtype);
        assert_eq!((x.dtype(), dtype_code(x.dtype()).unwrap()), (DType::F32, ET_DTYPE_F32));
        assert_eq!((x.dims(), x.elem_count()), (&[2, 3][..], 6));
        let mut bytes = [0u8; 24];
        create::read(&x, &mut bytes).unwrap();
        let found: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect();
        assert_eq!(found, rounded(dtype, &VALUES));
        assert_ne!(found, VALUES);
    }
    let plain = Tensor::narrow(raw(&VALUES, &[6]));
    assert!(!plain.is_narrow(), "f32 is kept as it is");
}

#[test]
fn narrow_and_plain_tensors_meet_as_f32() {
    let kept = rounded(DType::BF16, &VALUES);
    let (x, y) = (narrow(DType::BF16, &VALUES, &[2, 3]), Tensor::new(raw(&VALUES, &[2, 3])));
    let sum = binary(ET_BINARY_ADD, &x, &y).unwrap();
    assert!(!sum.is_narrow());
    let expected: Vec<f32> = kept.iter().zip(VALUES).map(|(a, b)| a + b).collect();
    assert_eq!(floats(&sum), expected);
    let total = reduce(ET_REDUCE_SUM, &x, &[], false).unwrap();
    assert!((floats(&total)[0] - kept.iter().sum::<f32>()).abs() < 1e-4);
    let labels = Tensor::new(Raw::new(&[0i64, 2], &Device::Cpu).unwrap());
    let loss = |x: &Tensor| floats(&cross_entropy(x, &labels, None, -100, 0.0).unwrap())[0];
    assert_eq!(loss(&x), loss(&Tensor::new(raw(&kept, &[2, 3]))));
    let weight = Tensor::new(raw(&[0.5, -1.0, 0.25], &[1, 3]));
    let layer = |x: &Tensor| floats(&linear(x, &weight, None, Activation::Gelu).unwrap());
    assert_eq!(layer(&x), layer(&Tensor::new(raw(&kept, &[2, 3]))));
}

#[test]
fn sums_of_narrow_tensors_are_narrow_and_rounded_once() {
    let other = [2.5f32, 0.3, -3.1, 1e3, 0.01, 7.0];
    for (dtype, op) in [(DType::BF16, ET_BINARY_ADD), (DType::F16, ET_BINARY_SUB)] {
        let (a, b) = (narrow(dtype, &VALUES, &[6]).leaf(), narrow(dtype, &other, &[6]).leaf());
        let y = binary(op, &a, &b).unwrap();
        assert!(y.is_narrow() && y.is_tracked());
        let sign = if op == ET_BINARY_ADD { 1.0 } else { -1.0 };
        let (va, vb) = (floats(&a), floats(&b));
        let sums: Vec<f32> = va.iter().zip(&vb).map(|(a, b)| a + sign * b).collect();
        assert_eq!(floats(&y), rounded(dtype, &sums));
        backward(&reduce(ET_REDUCE_SUM, &y, &[], false).unwrap(), None).unwrap();
        assert_eq!(floats(&a.leaf_grad().unwrap().unwrap()), [1.0; 6]);
        assert_eq!(floats(&b.leaf_grad().unwrap().unwrap()), [sign; 6]);
    }
    // A bias is stretched, which f32 does.
    let (x, bias) = (narrow(DType::BF16, &VALUES, &[2, 3]), narrow(DType::BF16, &[1.0; 3], &[3]));
    assert!(!binary(ET_BINARY_ADD, &x, &bias).unwrap().is_narrow());
}

#[test]
fn views_and_casts_keep_what_is_kept() {
    let x = narrow(DType::BF16, &VALUES, &[2, 3]);
    let turned = shape::permute(&shape::reshape(&x, &[3, 2]).unwrap(), &[1, 0]).unwrap();
    let part = shape::narrow(&turned, 1, 1, 2).unwrap();
    let dense = shape::contiguous(&part).unwrap();
    assert!(turned.is_narrow() && part.is_narrow() && dense.is_narrow());
    let kept = rounded(DType::BF16, &VALUES);
    assert_eq!(floats(&dense), [kept[2], kept[4], kept[3], kept[5]]);
    // A cast to bf16 gives a tensor that is bf16 to everybody, without another rounding.
    let cast = shape::cast(&x, DType::BF16).unwrap();
    assert!(!cast.is_narrow() && cast.dtype() == DType::BF16);
    let half = shape::cast(&x, DType::F16).unwrap();
    assert_eq!(half.dtype(), DType::F16);
    assert!(x.detach().is_narrow() && x.leaf().is_narrow());
}

/// 2 x, as an operation on a card that reads and gives gradients in bf16 would do it.
fn twice(x: &Tensor) -> Tensor {
    let y = x.value().affine(2.0, 0.0).unwrap().to_dtype(DType::BF16).unwrap();
    record_narrow("twice", &[x], y, |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = grad.to_dtype(DType::BF16)?;
        pass.give(0, grad.affine(2.0, 0.0)?)
    })
}

#[test]
fn gradients_reach_others_as_f32() {
    let start = Tensor::new(raw(&VALUES, &[6])).leaf();
    // An operation that knows nothing of it, two that do, and again one that does not.
    let shifted = unary::affine(&start, 1.0, 0.5).unwrap();
    let y = twice(&twice(&shifted));
    assert!(y.is_narrow() && y.is_tracked());
    let square = binary(ET_BINARY_MUL, &y, &y).unwrap();
    let loss = reduce(ET_REDUCE_SUM, &square, &[], false).unwrap();
    backward(&loss, None).unwrap();
    let grad = start.leaf_grad().unwrap().unwrap();
    assert_eq!(grad.dtype(), DType::F32);
    for (found, y) in floats(&grad).iter().zip(floats(&y)) {
        let expected = 4.0 * 2.0 * y;
        assert!((found - expected).abs() <= expected.abs() / 128.0, "{found} {expected}");
    }
}

#[test]
fn gradients_of_two_kinds_add_up() {
    let x = Tensor::new(raw(&VALUES, &[6])).leaf();
    let shared = twice(&x);
    // One consumer gives bf16, the other f32.
    let sum = binary(ET_BINARY_ADD, &twice(&shared), &shared).unwrap();
    let loss = reduce(ET_REDUCE_SUM, &sum, &[], false).unwrap();
    backward(&loss, None).unwrap();
    assert_eq!(floats(&x.leaf_grad().unwrap().unwrap()), [6.0; 6]);
}

#[test]
fn gradients_of_tensors_that_are_bf16_stay_bf16() {
    let x = Tensor::new(raw(&VALUES, &[6]).to_dtype(DType::BF16).unwrap()).leaf();
    let wide = shape::cast(&x, DType::F32).unwrap();
    backward(&reduce(ET_REDUCE_SUM, &wide, &[], false).unwrap(), None).unwrap();
    assert_eq!(x.leaf_grad().unwrap().unwrap().dtype(), DType::BF16);
    assert!(!x.is_narrow());
}
