//! Elementwise results in memory of the pool, for contiguous f32; candle serves the rest from fresh memory.

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi as abi;

use crate::device;
use crate::error::Result;
use crate::kernels::elementwise::{self, Zip};
use crate::storage::{self, tensor_from_vec};

fn is_plain(x: &Raw) -> bool {
    x.dtype() == DType::F32 && device::is_host(x) && x.is_contiguous() && x.elem_count() > 0
}

fn zip_of(op: i32) -> Option<Zip> {
    Some(match op {
        abi::ET_BINARY_ADD => Zip::Add,
        abi::ET_BINARY_SUB => Zip::Sub,
        abi::ET_BINARY_MUL => Zip::Mul,
        abi::ET_BINARY_DIV => Zip::Div,
        // Candle's, which says what happens to NaN.
        _ => return None,
    })
}

/// `a op b` where `b` has the shape of `a` or of its last axes; `None` for anything else.
fn zipped(op: i32, a: &Raw, b: &Raw) -> Result<Option<Raw>> {
    let Some(op) = zip_of(op) else { return Ok(None) };
    if !is_plain(a) || !is_plain(b) || !a.dims().ends_with(b.dims()) {
        return Ok(None);
    }
    let mut out = storage::take::<f32>(a.elem_count());
    elementwise::zip(op, &storage::read::<f32>(a)?, &storage::read::<f32>(b)?, &mut out)?;
    Ok(Some(tensor_from_vec(out, a.dims().to_vec())?))
}

/// An `ET_BINARY_` operation on tensors of one type that broadcast to `shape`; `None` where candle must do it.
pub(super) fn binary(op: i32, a: &Raw, b: &Raw, shape: &[usize]) -> Result<Option<Raw>> {
    if a.dims() == shape { zipped(op, a, b) } else { Ok(None) }
}

/// a b, elementwise, of one shape.
pub(super) fn mul(a: &Raw, b: &Raw) -> Result<Raw> {
    match zipped(abi::ET_BINARY_MUL, a, b)? {
        Some(product) => Ok(product),
        None => Ok(a.mul(b)?),
    }
}

/// a / b, elementwise, of one shape.
pub(super) fn div(a: &Raw, b: &Raw) -> Result<Raw> {
    match zipped(abi::ET_BINARY_DIV, a, b)? {
        Some(quotient) => Ok(quotient),
        None => Ok(a.div(b)?),
    }
}

/// x scale + shift.
pub(super) fn affine(x: &Raw, scale: f64, shift: f64) -> Result<Raw> {
    if !is_plain(x) {
        return Ok(x.affine(scale, shift)?);
    }
    let mut out = storage::take::<f32>(x.elem_count());
    let source = storage::read::<f32>(x)?;
    elementwise::affine(scale as f32, shift as f32, &source, &mut out)?;
    tensor_from_vec(out, x.dims().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_candle() {
        let values = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin() + 1.5).collect::<Vec<_>>();
        let a = tensor_from_vec(values(60), (4, 3, 5)).unwrap();
        for b in [&[4, 3, 5][..], &[3, 5], &[5], &[]] {
            let b = tensor_from_vec(values(b.iter().product()), b.to_vec()).unwrap();
            for op in
                [abi::ET_BINARY_ADD, abi::ET_BINARY_SUB, abi::ET_BINARY_MUL, abi::ET_BINARY_DIV]
            {
                let wide = b.broadcast_as((4, 3, 5)).unwrap();
                let expected = match op {
                    abi::ET_BINARY_ADD => a.add(&wide),
                    abi::ET_BINARY_SUB => a.sub(&wide),
                    abi::ET_BINARY_MUL => a.mul(&wide),
                    _ => a.div(&wide),
                };
                let found = binary(op, &a, &b, &[4, 3, 5]).unwrap().unwrap();
                let flat = |x: &Raw| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(flat(&found), flat(&expected.unwrap()), "{op} {:?}", b.dims());
            }
        }
        let (found, expected) = (affine(&a, 0.3, -2.0).unwrap(), a.affine(0.3, -2.0).unwrap());
        assert_eq!(found.to_vec3::<f32>().unwrap(), expected.to_vec3::<f32>().unwrap());
    }

    #[test]
    fn other_layouts_and_types_are_left_to_candle() {
        let a = tensor_from_vec(vec![1f32; 6], (2, 3)).unwrap();
        assert!(zipped(abi::ET_BINARY_ADD, &a.t().unwrap(), &a.t().unwrap()).unwrap().is_none());
        let b = tensor_from_vec(vec![1f32; 2], (2, 1)).unwrap();
        assert!(binary(abi::ET_BINARY_ADD, &a, &b, &[2, 3]).unwrap().is_none());
        let double = tensor_from_vec(vec![1f64; 6], (2, 3)).unwrap();
        assert!(zipped(abi::ET_BINARY_ADD, &double, &double).unwrap().is_none());
    }
}
