//! What plugins do with parameter sets beyond training one: parts, copies, gradients of another set, arenas, steps of
//! a part, and gradients that go on with a factor.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use easytransfer::plugin::abi::{ET_ERR_INVALID_ARGUMENT, ET_ERR_NOT_FOUND, ET_ERR_UNIMPLEMENTED};
use easytransfer::plugin::{
    DType, Init, LoadedOptimizer, NoOptions, Optimizer, Params, Result, Stream, Tensor,
    live_handles,
};
use easytransfer_tests::linked;

/// An optimizer of whole steps.
struct Whole;

impl Optimizer for Whole {
    const NAME: &'static CStr = c"whole-steps";
    type Options = NoOptions;
    fn new(_: NoOptions, _: &Params) -> Result<Self> {
        Ok(Self)
    }
    fn step(&mut self, _: &mut Params, _: f64, _: u64) -> Result<()> {
        Ok(())
    }
    fn save(&self, _: &mut Stream) -> Result<()> {
        Ok(())
    }
    fn load(&mut self, _: &mut Stream) -> Result<()> {
        Ok(())
    }
}

easytransfer::plugin::export! {
    id: "whole-steps",
    optimizers: [Whole],
}

fn set(seed: u64, dtype: DType) -> Params {
    let mut params = Params::with_dtype(seed, dtype).unwrap();
    let root = params.root().unwrap();
    for (name, shape) in
        [("encoder.weight", &[4, 5][..]), ("encoder.bias", &[4]), ("head", &[3, 4])]
    {
        root.param(name, shape, Init::Normal(0.0, 1.0)).unwrap();
    }
    params.seal().unwrap();
    params
}

fn f64s(x: &Tensor) -> Vec<f64> {
    x.cast(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

fn values(params: &Params) -> Vec<Vec<f64>> {
    params.iter().map(|param| f64s(&param.tensor().unwrap())).collect()
}

fn grads(params: &Params) -> Vec<Option<Vec<f64>>> {
    params.iter().map(|param| param.grad().unwrap().map(|grad| f64s(&grad))).collect()
}

/// The gradient of the sum of all squares: twice the values.
fn pass(params: &Params) {
    for param in params.iter() {
        param.tensor().unwrap().sqr().unwrap().sum(&[], false).unwrap().backward().unwrap();
    }
}

/// Handles are counted over the whole process, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn sets_are_cut_copied_and_added() {
    let _turn = turn();
    let _runtime = linked::runtime();
    let before = live_handles();
    for dtype in [DType::F32, DType::F64] {
        let (mut a, b) = (set(1, dtype), set(2, dtype));
        let same = a.clone();
        let mut head = a.part(&["head"]).unwrap();
        assert_eq!((head.len(), head.arena_len()), (1, a.arena_len()));
        let start = values(&a);
        head.copy_from(&b).unwrap();
        assert_eq!(values(&same)[..2], start[..2]);
        assert_eq!(values(&same)[2], values(&b)[2]);
        a.lerp(&b, 0.5).unwrap();
        for (at, found) in values(&a)[0].iter().enumerate() {
            let expected = (start[0][at] + values(&b)[0][at]) / 2.0;
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
        // First-order meta learning: the gradient of the copy goes to what was copied.
        pass(&b);
        a.add_grads(&b, 0.5).unwrap();
        assert_eq!(grads(&a), values(&b).into_iter().map(Some).collect::<Vec<_>>());
        head.zero_grads();
        assert_eq!(grads(&a).iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        let settled = f64s(&a.arena_grads().unwrap());
        assert_eq!((settled.len(), grads(&a)[2].clone()), (a.arena_len(), Some(vec![0.0; 12])));
        assert_eq!(f64s(&a.arena_values().unwrap())[..20], values(&a)[0]);
        let error = a.part(&["heads*"]).map(drop).unwrap_err();
        assert_eq!(error.code(), ET_ERR_NOT_FOUND);
        assert!(error.message().contains("heads*") && error.message().contains("head"), "{error}");
    }
    assert_eq!(live_handles(), before);
}

#[test]
fn a_gradient_goes_on_with_a_factor_and_the_value_stays() {
    let _turn = turn();
    let _runtime = linked::runtime();
    let data = [1e-30f64, -3.7, 0.1, 1e30, -0.0, 5.5];
    for dtype in [DType::F32, DType::F64] {
        for factor in [-1.0, -0.3, 0.0, 2.0] {
            let x = Tensor::from_slice(&data, &[2, 3]).unwrap().cast(dtype).unwrap();
            let x = x.leaf().unwrap();
            let y = x.scale_grad(factor).unwrap();
            assert_eq!(f64s(&y), f64s(&x), "the value is that of x");
            assert!(y.is_tracked());
            let weights = Tensor::from_slice(&[1.0f64, 2., 3., 4., 5., 6.], &[2, 3]).unwrap();
            let weights = weights.cast(dtype).unwrap();
            y.mul(&weights).unwrap().sum(&[], false).unwrap().backward().unwrap();
            let factor = f64s(&Tensor::full(factor, dtype, &[1]).unwrap())[0];
            for (found, weight) in f64s(&x.leaf_grad().unwrap().unwrap()).iter().zip(f64s(&weights))
            {
                assert!((found - factor * weight).abs() < 1e-6, "{found} for {factor} {weight}");
            }
        }
    }
}

#[test]
fn optimizers_step_a_part_of_the_arena() {
    let _turn = turn();
    let runtime = linked::runtime();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    let create = |name: &str, params: &Params| {
        let component = runtime.components().find("et.optimizer/1", name).unwrap();
        LoadedOptimizer::create(&component, "", params).unwrap()
    };
    for name in ["adamw", "adam", "sgd", "lamb", "adafactor"] {
        let train = |bounds: &[usize]| {
            let mut params = set(3, DType::F32);
            let mut optimizer = create(name, &params);
            assert!(optimizer.has_parts(), "{name}");
            for step in 1..=3 {
                params.zero_grads();
                pass(&params);
                match bounds {
                    [] => optimizer.step(&mut params, 0.1, step).unwrap(),
                    bounds => bounds.windows(2).for_each(|pair| {
                        optimizer.step_part(&mut params, 0.1, step, pair[0]..pair[1]).unwrap();
                    }),
                }
            }
            values(&params)
        };
        let whole = train(&[]);
        assert_ne!(whole, values(&set(3, DType::F32)), "{name}");
        // Parameters lie at 0, 32 and 48, the arena ends at 64; an empty part changes nothing.
        assert_eq!(train(&[0, 0, 32, 32, 64]), whole, "{name}");
        assert_ne!(train(&[0, 32]), whole, "{name}");
        let mut params = set(3, DType::F32);
        pass(&params);
        let mut optimizer = create(name, &params);
        let mut refused = |part: std::ops::Range<usize>, word: &str| {
            let error = optimizer.step_part(&mut params, 0.1, 1, part).unwrap_err();
            assert_eq!(error.code(), ET_ERR_INVALID_ARGUMENT, "{error}");
            assert!(error.message().contains(name) && error.message().contains(word), "{error}");
        };
        refused(0..65, "64");
        if matches!(name, "lamb" | "adafactor") {
            refused(0..10, "encoder.weight");
        } else {
            assert_eq!(train(&[0, 10, 33, 64]), whole, "{name}");
        }
    }
    let mut params = set(3, DType::F32);
    let mut optimizer = create("whole-steps", &params);
    assert!(!optimizer.has_parts());
    let error = optimizer.step_part(&mut params, 0.1, 1, 0..32).unwrap_err();
    assert_eq!(error.code(), ET_ERR_UNIMPLEMENTED);
    assert!(error.message().contains("whole-steps"), "{error}");
}
