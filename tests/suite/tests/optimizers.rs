//! The optimizers of `plugins/optim-basic` make the steps of PyTorch's and transformers';
//! `tests/parity/make_optimizers.py` makes the golden.

use easytransfer::plugin::{Init, LoadedOptimizer, Params, Tensor};
use easytransfer_tests::{linked, places};
use serde_json::Value;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn optimizer_steps_equal_the_reference() {
    let runtime = linked::runtime();
    let text = std::fs::read_to_string(places::parity().join("optimizers.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let lr = golden["lr"].as_f64().unwrap();
    let shape_of = |name: &str| -> Vec<usize> {
        let extents = golden["shapes"][name].as_array().unwrap();
        extents.iter().map(|extent| extent.as_u64().unwrap() as usize).collect()
    };
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let what = format!("{} {}", case["optimizer"], case["options"]);
        let mut params = Params::new(0).unwrap();
        let root = params.root().unwrap();
        let named: Vec<_> = ["matrix", "vector"]
            .map(|name| {
                let param = root.param(name, &shape_of(name), Init::Zeros).unwrap();
                let start = Tensor::from_slice(&floats(&golden["start"][name]), param.shape());
                param.assign(&start.unwrap()).unwrap();
                // Without it, vectors would not decay, as is usual in fine-tuning.
                param.set_decay(true);
                (name, param)
            })
            .into();
        params.seal().unwrap();
        let component =
            runtime.components().find("et.optimizer/1", case["optimizer"].as_str().unwrap());
        let options = case["options"].to_string();
        let mut optimizer =
            LoadedOptimizer::create(&component.unwrap(), &options, &params).unwrap();
        for (step, expected) in case["after"].as_array().unwrap().iter().enumerate() {
            params.zero_grads();
            for (name, param) in &named {
                let grad = floats(&golden["gradients"][step][*name]);
                param.set_grad(&Tensor::from_slice(&grad, param.shape()).unwrap()).unwrap();
            }
            optimizer.step(&mut params, lr, step as u64 + 1).unwrap();
            for (name, param) in &named {
                let found = param.tensor().unwrap().to_vec::<f32>().unwrap();
                for (at, (a, b)) in found.iter().zip(floats(&expected[*name])).enumerate() {
                    let close = (a - b).abs() <= 1e-6 * b.abs().max(1.0);
                    assert!(
                        close,
                        "{what}: step {} {name}[{at}]: expected {b}, found {a}",
                        step + 1
                    );
                }
            }
        }
    }
}
