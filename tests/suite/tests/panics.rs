//! A plugin that panics is an error in the host, and that instance is not used again.

use easytransfer::plugin::abi::{ET_ERR_FAILED_PRECONDITION, ET_ERR_PANIC};
use easytransfer::plugin::{
    Call, Loss, Map, NoOptions, Recompute, RecomputeScope, Result, Tensor, recomputed,
};
use easytransfer::{Runtime, RuntimeOptions};
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Panics in its second call.
struct Fragile(u32);

impl Loss for Fragile {
    const NAME: &'static CStr = c"fragile";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self(0))
    }

    fn forward(&mut self, _: &Call<'_>, _: &Map, _: &Map) -> Result<Tensor> {
        self.0 += 1;
        assert!(self.0 != 2, "the second call");
        Tensor::scalar(1.0)
    }
}

/// Panics when it is made.
struct Stillborn;

impl Loss for Stillborn {
    const NAME: &'static CStr = c"stillborn";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        panic!("not made")
    }

    fn forward(&mut self, _: &Call<'_>, _: &Map, _: &Map) -> Result<Tensor> {
        Tensor::scalar(0.0)
    }
}

easytransfer::plugin::export! { id: "loss-fragile", losses: [Fragile, Stillborn] }

#[test]
fn panic_in_a_callback_is_an_error_and_poisons_the_instance() {
    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options).unwrap();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    let error = runtime.loss("stillborn", "").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("not made") && error.contains("stillborn"), "{error}");

    let (outputs, batch) = (Map::new().unwrap(), Map::new().unwrap());
    let call = Call::inference(0);
    let mut loss = runtime.loss("fragile", "").unwrap();
    assert!(loss.forward(&call, &outputs, &batch).is_ok());
    let error = loss.forward(&call, &outputs, &batch).unwrap_err();
    assert_eq!(error.code(), ET_ERR_PANIC);
    assert!(error.message().contains("the second call"), "{error}");
    let error = loss.forward(&call, &outputs, &batch).unwrap_err();
    assert_eq!(error.code(), ET_ERR_FAILED_PRECONDITION);

    // Another instance of the same component works.
    let mut other = runtime.loss("fragile", "").unwrap();
    assert!(other.forward(&call, &outputs, &batch).is_ok());
}

#[test]
fn panic_in_the_second_run_of_a_segment_is_an_error() {
    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    let _runtime = Runtime::new(options).unwrap();
    let x = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap().leaf().unwrap();
    let by_layer = RecomputeScope::new(Recompute::Layer).unwrap();
    let runs = AtomicUsize::new(0);
    let [y] = recomputed(&[&x], None, move |inputs, _| {
        assert_eq!(runs.fetch_add(1, Ordering::Relaxed), 0, "the second run");
        Ok([inputs[0].tanh()?])
    })
    .unwrap();
    let error = y.sum(&[], false).unwrap().backward().unwrap_err();
    drop(by_layer);
    assert_eq!(error.code(), ET_ERR_PANIC);
    let text = error.message();
    assert!(text.contains("checkpoint") && text.contains("the second run"), "{error}");
    assert!(x.leaf_grad().unwrap().is_none());
}
