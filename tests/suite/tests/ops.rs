//! An operation of one plugin, looked up and used by another one: forward, backward, and what is said of names that
//! nobody offers.

use easytransfer::Runtime;
use easytransfer::plugin::abi::ET_ERR_NOT_FOUND;
use easytransfer::plugin::{Call, Map, Tensor, find_op, live_handles};
use easytransfer_tests::command::Place;
use easytransfer_tests::face::{Face, RustFace};
use easytransfer_tests::{linked, places};
use serde_json::{Value, json};

/// The plugin that has the operation.
mod giver {
    use easytransfer::plugin::{InputView, Op, OutputSpec, OutputView, Result, Tensor};
    use std::ffi::CStr;

    /// y = a b, elementwise, and the sum of both.
    struct ProductAndSum;

    impl Op for ProductAndSum {
        const NAME: &'static CStr = c"product-and-sum";
        const INPUTS: usize = 2;
        const OUTPUTS: usize = 2;

        fn infer(&self, inputs: &[OutputSpec]) -> Result<Vec<OutputSpec>> {
            Ok(inputs.to_vec())
        }

        fn forward(&self, inputs: &[InputView<'_>], outputs: &mut [OutputView<'_>]) -> Result<()> {
            let (a, b) = (inputs[0].as_slice::<f32>()?, inputs[1].as_slice::<f32>()?);
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                outputs[0].as_mut_slice::<f32>()?[i] = a * b;
                outputs[1].as_mut_slice::<f32>()?[i] = a + b;
            }
            Ok(())
        }

        fn backward(
            &self,
            inputs: &[&Tensor],
            _: &[&Tensor],
            output_grads: &[Option<&Tensor>],
        ) -> Result<Vec<Option<Tensor>>> {
            let of = |other: &Tensor| match output_grads {
                [Some(product), None] => product.mul(other).map(Some),
                [Some(product), Some(sum)] => product.mul(other)?.add(sum).map(Some),
                [None, sum] => Ok(sum.cloned()),
                _ => Ok(None),
            };
            Ok(vec![of(inputs[1])?, of(inputs[0])?])
        }
    }

    easytransfer::plugin::export! {
        id: "op-giver",
        ops: [ProductAndSum],
    }
}

/// The plugin that uses it.
mod taker {
    use easytransfer::plugin::{
        Call, LoadedOp, Loss, Map, NoOptions, Phases, Result, Session, Strategy, Tensor, find_op,
    };
    use std::ffi::CStr;

    /// The sum of a b + a + b.
    struct Borrowing(LoadedOp);

    impl Loss for Borrowing {
        const NAME: &'static CStr = c"borrowing";
        type Options = NoOptions;

        fn new(_: NoOptions) -> Result<Self> {
            find_op("product-and-sum").map(Self)
        }

        fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
            let both = self.0.apply(&[&outputs.get("logits")?, &batch.get("labels")?])?;
            both[0].add(&both[1])?.sum(&[], false)
        }
    }

    /// Whether the strategy borrows.
    #[derive(serde::Deserialize)]
    pub struct Options {
        borrows: bool,
    }

    /// Keeps logits small: adds the mean of their squares to the loss.
    struct Small(Option<LoadedOp>);

    impl Strategy for Small {
        const NAME: &'static CStr = c"small-logits";
        const SCHEMA: &'static CStr =
            cr#"{"type":"object","properties":{"borrows":{"type":"boolean"}}}"#;
        type Options = Options;

        fn new(options: Options) -> Result<Self> {
            Ok(Self(options.borrows.then(|| find_op("product-and-sum")).transpose()?))
        }

        fn phases(&self) -> Phases {
            Phases::OUTPUTS
        }

        fn on_outputs(&mut self, session: &mut Session<'_>, _: &Map, outputs: &Map) -> Result<()> {
            let logits = outputs.get("logits")?;
            let squares = match &self.0 {
                Some(op) => op.apply(&[&logits, &logits])?.swap_remove(0),
                None => logits.sqr()?,
            };
            session.add_loss("small", &squares.mean(&[], false)?, 0.5)
        }
    }

    easytransfer::plugin::export! {
        id: "op-taker",
        losses: [Borrowing],
        strategies: [Small],
    }
}

/// A run whose strategy borrows the operation ends with the bytes of one that computes the same by itself.
fn training_with_a_borrowed_operation_is_training(runtime: &Runtime) {
    let place = Place::new("borrowed-operation");
    let demo = places::root().join("hosts/demo");
    let weights = |name: &str, strategy: Value| {
        let (train, valid) = (demo.join("messages.train.tsv"), demo.join("messages.dev.tsv"));
        let config = json!({ "epochs": 1, "max_steps": 3, "seed": 3, "strategy": strategy });
        let bundle = place.at(name);
        let face = RustFace(runtime.clone());
        face.fit(&demo.join("encoder"), &train, &valid, &bundle, &config).unwrap();
        std::fs::read(bundle.join("model.safetensors")).unwrap()
    };
    let borrowed = weights("borrowed", json!({ "small-logits": { "borrows": true } }));
    let own = weights("own", json!({ "small-logits": { "borrows": false } }));
    let without = weights("without", json!({ "finetune": {} }));
    assert!(borrowed == own, "the operation computes something else");
    assert!(borrowed != without, "the strategy did nothing");
}

/// One test, because the runtimes of a process share what they have.
#[test]
fn a_plugin_uses_the_operation_of_another_one() {
    {
        let runtime = linked::runtime();
        runtime.register_plugin(taker::PluginRecord::get()).unwrap();
        // The loss is there, what it wants is not.
        let error = runtime.loss("borrowing", "").err().expect("refused").to_string();
        assert!(error.contains("borrowing") && error.contains("product-and-sum"), "{error}");
    }
    let runtime = linked::runtime();
    runtime.register_plugin(taker::PluginRecord::get()).unwrap();
    runtime.register_plugin(giver::PluginRecord::get()).unwrap();
    // A younger runtime without it does not hide it.
    let younger = linked::runtime();
    let before = live_handles();
    {
        let mut loss = runtime.loss("borrowing", "").unwrap();
        let a = Tensor::from_slice(&[1.0f32, -2.0, 3.0], &[3]).unwrap().leaf().unwrap();
        let b = Tensor::from_slice(&[4.0f32, 5.0, 6.0], &[3]).unwrap().leaf().unwrap();
        let (mut outputs, mut batch) = (Map::new().unwrap(), Map::new().unwrap());
        outputs.put("logits", &a).unwrap();
        batch.put("labels", &b).unwrap();
        let sum = loss.forward(&Call::inference(0), &outputs, &batch).unwrap();
        assert_eq!(sum.to_scalar().unwrap(), 4.0 - 10.0 + 18.0 + 2.0 + 15.0);
        sum.backward().unwrap();
        let grad = |x: &Tensor| x.leaf_grad().unwrap().unwrap().to_vec::<f32>().unwrap();
        assert_eq!((grad(&a), grad(&b)), (vec![5.0, 6.0, 7.0], vec![2.0, -1.0, 4.0]));
    }
    let op = find_op("product-and-sum").unwrap();
    assert_eq!((op.arity(), op.has_backward()), ((2, 2), true));
    let one = Tensor::from_slice(&[1.0f32], &[1]).unwrap();
    let error = op.apply(&[&one]).expect_err("refused");
    assert!(error.message().contains("expected 2 inputs, found 1"), "{error}");
    drop(one);
    training_with_a_borrowed_operation_is_training(&runtime);
    let error = find_op("product-and-some").err().expect("unknown");
    assert_eq!(error.code(), ET_ERR_NOT_FOUND);
    assert!(error.message().contains("product-and-some"), "{error}");
    // What another kind offers under that name is no operation.
    assert_eq!(find_op("borrowing").err().expect("a loss").code(), ET_ERR_NOT_FOUND);
    assert_eq!(live_handles(), before);
    drop(younger);
    let error = find_op("product-and-some").err().expect("unknown");
    assert!(error.message().contains("did you mean \"product-and-sum\"?"), "{error}");
    drop(runtime);
    assert!(find_op("product-and-sum").is_err(), "it went with its runtime");
}
