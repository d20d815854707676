//! One training step against PyTorch's: soft losses of distillation, and steps whose rows come in several batches.
//! `tests/parity/make_steps.py` makes the golden.

use easytransfer::plugin::{Init, Params, Tensor};
use easytransfer_tests::command::Place;
use easytransfer_tests::linked::tl_distill::{Targets, soft_loss};
use easytransfer_tests::{linked, places};
use serde_json::Value;

fn golden() -> Value {
    let text = std::fs::read_to_string(places::parity().join("steps.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 2e-6 * b.abs().max(1.0), "{what}[{at}]: expected {b}, found {a}");
    }
}

#[test]
fn soft_losses_and_their_gradients_equal_the_reference() {
    let _runtime = linked::runtime();
    let golden = golden();
    let temperature = golden["temperature"].as_f64().unwrap();
    let cases = golden["distill"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let what = format!("{} of {}", case["kind"], case["width"]);
        let targets = match case["kind"].as_str().unwrap() {
            "classes" => Targets::Classes,
            "labels" => Targets::Labels,
            _ => Targets::Values,
        };
        let shape = [3, case["width"].as_u64().unwrap() as usize];
        let mut params = Params::new(0).unwrap();
        let student = params.root().unwrap().param("student", &shape, Init::Zeros).unwrap();
        student.assign(&Tensor::from_slice(&floats(&case["student"]), &shape).unwrap()).unwrap();
        params.seal().unwrap();
        let teacher = Tensor::from_slice(&floats(&case["teacher"]), &shape).unwrap();
        let loss = soft_loss(targets, &student.tensor().unwrap(), &teacher, temperature).unwrap();
        let expected = case["loss"].as_f64().unwrap();
        assert_near(&[loss.to_scalar().unwrap() as f32], &[expected as f32], &what);
        params.zero_grads();
        loss.backward().unwrap();
        let found = student.grad().unwrap().expect("a gradient").to_vec::<f32>().unwrap();
        assert_near(&found, &floats(&case["gradient"]), &what);
        // A student that says what its teacher says has nothing to learn.
        let equal = soft_loss(targets, &teacher, &teacher, temperature).unwrap();
        assert_near(&[equal.to_scalar().unwrap() as f32], &[0.0], &what);
    }
}

/// The golden's rows as a file whose words are their tokens.
fn write_rows(place: &Place, golden: &Value, targets: &Value) {
    let tiny = places::parity().join("tiny/bert");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny.join(file), place.at(&format!("encoder/{file}"))).unwrap();
    }
    let words: Vec<String> = (0..100)
        .map(|id| match id {
            0 => "[PAD]".to_owned(),
            1 => "[UNK]".to_owned(),
            2 => "[CLS]".to_owned(),
            3 => "[SEP]".to_owned(),
            4 => "[MASK]".to_owned(),
            id => format!("w{id}"),
        })
        .collect();
    place.write("encoder/vocab.txt", format!("{}\n", words.join("\n")));
    let rows = golden["rows"].as_array().unwrap().iter().zip(targets.as_array().unwrap());
    let lines: Vec<String> = rows
        .map(|(ids, target)| {
            let ids = ids.as_array().unwrap();
            let text: Vec<String> =
                ids[1..ids.len() - 1].iter().map(|id| format!("w{id}")).collect();
            serde_json::json!({ "text": text.join(" "), "label": target }).to_string()
        })
        .collect();
    place.write("rows.jsonl", lines.join("\n"));
}

#[test]
fn a_step_of_uneven_batches_equals_the_reference_over_all_rows() {
    let golden = golden();
    let place = Place::new("uneven");
    let steps = golden["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4);
    for step in steps {
        write_rows(&place, &golden, &step["targets"]);
        let problem = format!("app.problem={}", step["problem"].as_str().unwrap());
        let ignore = format!("loss.ignore_index={}", step["ignore"]);
        let is_classes = step["problem"] == "multi-class";
        for batches in [
            ["batch.rows=5", "accumulate=1"],
            ["batch.rows=3", "accumulate=2"],
            ["batch.rows=3", "accumulate=7"],
        ] {
            let what = format!("{problem}, {ignore}, {}", batches.join(", "));
            let mut settings = vec![
                "epochs=1",
                "max_steps=0",
                "optimizer.name=sgd",
                "lr=1",
                "clip=0",
                "schedule.name=constant",
                "schedule.warmup=0",
                "encoder.hidden_dropout_prob=0",
                "encoder.attention_probs_dropout_prob=0",
                // So small that the head's weights are zeros.
                "encoder.initializer_range=1e-30",
                &problem,
            ];
            settings.extend(batches);
            if is_classes {
                settings.extend(["loss.name=cross-entropy", &ignore]);
            }
            let mut more =
                vec!["--encoder", "encoder", "--train", "rows.jsonl", "--valid", "rows.jsonl"];
            more.extend(settings.iter().flat_map(|setting| ["--set", setting]));
            let said = place.train("run", &more).good(&what);
            assert!(said.starts_with("trained 1 steps"), "{what}: {said}");
            assert_near(
                &[place.curve("run", "train/loss")[0] as f32],
                &[step["loss"].as_f64().unwrap() as f32],
                &what,
            );
            let tensors = place.tensors("run");
            for part in ["weight", "bias"] {
                let bytes = &tensors[&format!("classifier.{part}")];
                let found: Vec<f32> = bytes
                    .chunks(4)
                    .map(|four| -f32::from_le_bytes(four.try_into().unwrap()))
                    .collect();
                assert_near(&found, &floats(&step[part]), &format!("{what}: {part}"));
            }
        }
    }
}
