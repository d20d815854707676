//! ImageBERT (`zoo-imagebert`): equal to its twin in PyTorch with patches as numbers and as pixels, and able to learn
//! both of its tasks.

use easytransfer::plugin::{
    Call, LoadedModel, LoadedOptimizer, Map, ModelInfo, Params, Row, Tensor, abi, nn, no_grad,
};
use easytransfer_conformance::{Verdict, check_record};
use easytransfer_tests::{linked, twins};
use serde_json::{Value, json};

struct Loaded {
    model: LoadedModel,
    params: Params,
}

fn load(config: &Value) -> Loaded {
    let runtime = linked::runtime();
    let component = runtime.components().find("et.model/1", "imagebert").unwrap();
    let params = Params::new(3).unwrap();
    let root = params.root().unwrap();
    let model = LoadedModel::create(&component, &config.to_string(), &root).unwrap();
    Loaded { model, params }
}

fn refusal(config: Value) -> String {
    let runtime = linked::runtime();
    let component = runtime.components().find("et.model/1", "imagebert").unwrap();
    let params = Params::new(3).unwrap();
    let root = params.root().unwrap();
    LoadedModel::create(&component, &config.to_string(), &root).err().unwrap().to_string()
}

impl Loaded {
    fn run(&self, batch: &Map) -> Map {
        let mut outputs = Map::new().unwrap();
        let call = Call::inference(abi::ET_WANT_POOLED | abi::ET_WANT_HIDDEN_STATES);
        self.model.forward(&call, batch, &mut outputs).unwrap();
        outputs
    }
}

/// Rows with their images, by the fields that apps make.
fn batch_of(case: &Value, image: &str, numbers: &[f32], rows: std::ops::Range<usize>) -> Map {
    let count = case["ids"].as_array().unwrap().len();
    let list = |field: &str, row: usize| -> Vec<i64> {
        serde_json::from_value(case[field][row].clone()).unwrap()
    };
    let made: Vec<Row> = rows
        .map(|row| {
            let mut made = Row::new().unwrap();
            made.put_tokens("ids", &list("ids", row)).unwrap();
            made.put_tokens("segments", &list("segments", row)).unwrap();
            let width = numbers.len() / count;
            made.put_f32(image, &numbers[row * width..][..width]).unwrap();
            for field in ["patch_mask", "masked_patches"] {
                let flags: Vec<f32> = list(field, row).iter().map(|flag| *flag as f32).collect();
                made.put_f32(field, &flags).unwrap();
            }
            made
        })
        .collect();
    Map::from_rows(&made.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn imagebert_equals_its_twin() {
    let (mut worst_output, mut worst_gradient) = (0.0f64, 0.0f64);
    let cases = twins::cases("imagebert.json", "ET_IMAGEBERT_GOLDEN");
    for (index, case) in cases.iter().enumerate() {
        let what = case["config"].to_string();
        let mut loaded = load(&case["config"]);
        twins::fill(&loaded.params);
        loaded.params.seal().unwrap();
        let rows = case["ids"].as_array().unwrap().len();
        let width = case["config"]["patch_feature_size"].as_u64().unwrap() as usize;
        let count = rows * width * case["patches"].as_u64().unwrap() as usize;
        let numbers: Vec<f32> = twins::wave(count, index as f64).map(|x| x as f32).collect();
        let image = if case["config"]["image_size"].is_null() { "patches" } else { "pixels" };
        let outputs = loaded.run(&batch_of(case, image, &numbers, 0..rows));
        let expected = case["outputs"].as_object().unwrap();
        let mut loss = Tensor::scalar(0.0).unwrap();
        for (name, expected) in expected {
            let found = outputs.get(name).unwrap();
            let difference = twins::difference(&found, expected);
            assert!(difference < 1e-5, "{what}: {name}: {difference:.1e}");
            worst_output = worst_output.max(difference);
            loss = loss.add(&twins::weighted(&found)).unwrap();
        }
        // A row alone is answered as in a batch.
        let pooled = outputs.get("pooled").unwrap();
        for row in 0..rows {
            let alone = no_grad(|| loaded.run(&batch_of(case, image, &numbers, row..row + 1)));
            let alone = alone.get("pooled").unwrap().to_vec::<f32>().unwrap();
            let together = pooled.narrow(0, row, 1).unwrap().contiguous().unwrap();
            for (a, b) in alone.iter().zip(together.to_vec::<f32>().unwrap()) {
                assert!((a - b).abs() < 2e-6, "{what}: row {row}");
            }
        }
        loss.backward().unwrap();
        worst_gradient =
            worst_gradient.max(twins::gradients(&loaded.params, &case["gradients"], &what));
    }
    println!("{} cases: outputs {worst_output:.1e}, gradients {worst_gradient:.1e}", cases.len());
    assert!(cases.len() >= 12);
}

/// Images of four patches of four numbers whose kinds follow in turn from the first, which is what the text says.
fn scene(kinds: &[usize]) -> (Vec<Vec<i64>>, Vec<Vec<f32>>) {
    let patch = |kind: usize| (0..4).map(move |at| if at == kind % 4 { 1.0 } else { 0.0 });
    let text = kinds.iter().map(|kind| vec![2, 4 + *kind as i64, 3]).collect();
    (text, kinds.iter().map(|kind| (0..4).flat_map(|at| patch(kind + at)).collect()).collect())
}

fn rows(texts: &[Vec<i64>], images: &[Vec<f32>], field: &str, masked: &[Vec<f32>]) -> Map {
    let made: Vec<Row> = texts
        .iter()
        .zip(images)
        .zip(masked)
        .map(|((text, image), masked)| {
            let mut row = Row::new().unwrap();
            row.put_tokens("ids", text).unwrap();
            row.put_f32(field, image).unwrap();
            row.put_f32("masked_patches", masked).unwrap();
            row
        })
        .collect();
    Map::from_rows(&made.iter().collect::<Vec<_>>()).unwrap()
}

/// Both heads train through the model alone: which text belongs to which image, and what a hidden patch was, which
/// the other patches and the text tell. Pixels, of which each is its own patch of 2 x 2, learn the same.
#[test]
fn alignment_and_hidden_patches_are_learned() {
    for pixels in [false, true] {
        let mut config = json!({
            "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 8, "patch_feature_size": 4,
            "max_patch_position_embeddings": 4, "initializer_range": 0.2,
        });
        if pixels {
            let more = json!({"image_size": 4, "patch_size": 2, "num_channels": 1});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let mut loaded = load(&config);
        loaded.params.seal().unwrap();
        let component = linked::runtime().components().find("et.optimizer/1", "adam").unwrap();
        let mut optimizer = LoadedOptimizer::create(&component, "{}", &loaded.params).unwrap();
        // Four images that fit their texts, and four whose text is of another one; hidden is a patch of each.
        let (mut texts, mut images) = scene(&[0, 1, 2, 3, 0, 1, 2, 3]);
        texts[4..].rotate_left(1);
        if pixels {
            // Patches in their order become rows of pixels: the first two lie above the last two.
            let place = |at: usize| (at / 8, at / 4 % 2, at / 2 % 2, at % 2);
            for image in &mut images {
                let mut moved = vec![0.0; 16];
                for (at, value) in image.iter().enumerate() {
                    let (down, across, y, x) = place(at);
                    moved[(2 * down + y) * 4 + 2 * across + x] = *value;
                }
                *image = moved;
            }
        }
        let field = if pixels { "pixels" } else { "patches" };
        let masked: Vec<Vec<f32>> = (0..8)
            .map(|row| (0..4).map(|at| f32::from(u8::from(at == row % 4))).collect())
            .collect();
        let batch = rows(&texts, &images, field, &masked);
        let labels = Tensor::from_slice(&[1i64, 1, 1, 1, 0, 0, 0, 0], &[8]).unwrap();
        let (mut first, mut last) = (None, [0.0; 2]);
        for step in 0..150 {
            loaded.params.zero_grads();
            let outputs = loaded.run(&batch);
            let logits = outputs.get("alignment_logits").unwrap();
            let aligned = nn::cross_entropy(&logits, &labels, None, -100, 0.0).unwrap();
            let (said, were) =
                (outputs.get("patch_logits").unwrap(), outputs.get("patch_targets").unwrap());
            let patches = said.sub(&were).unwrap().sqr().unwrap().mean(&[], false).unwrap();
            last = [aligned.to_scalar().unwrap(), patches.to_scalar().unwrap()];
            first.get_or_insert(last);
            aligned.add(&patches).unwrap().backward().unwrap();
            optimizer.step(&mut loaded.params, 5e-3, step + 1).unwrap();
        }
        let first = first.unwrap();
        assert!(first[0] > 0.5 && last[0] < 0.05, "{field}: alignment {first:?} {last:?}");
        assert!(last[1] < 0.01 && last[1] < first[1] / 10.0, "{field}: patches {first:?} {last:?}");
    }
}

#[test]
fn text_without_an_image_and_an_image_without_patches_are_read() {
    let config = json!({
        "vocab_size": 9, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 5, "max_position_embeddings": 8, "patch_feature_size": 3,
        "max_patch_position_embeddings": 4,
    });
    let mut loaded = load(&config);
    let ids = [1i64, 2, 3];
    let batch = |mask: Option<&[f32]>| {
        let mut row = Row::new().unwrap();
        row.put_tokens("ids", &ids).unwrap();
        if let Some(mask) = mask {
            row.put_f32("patches", &vec![0.5; 3 * mask.len()]).unwrap();
            row.put_f32("patch_mask", mask).unwrap();
        }
        Map::from_rows(&[&row]).unwrap()
    };
    let vector = |loaded: &Loaded, mask: Option<&[f32]>| {
        let outputs = no_grad(|| loaded.run(&batch(mask)));
        assert_eq!(outputs.get("last").unwrap().shape(), [3, 6]);
        assert_eq!(outputs.get("hidden_states/2").unwrap().shape(), [3, 6]);
        assert_eq!(outputs.has("alignment_logits"), mask.is_some());
        outputs.get("pooled").unwrap().to_vec::<f32>().unwrap()
    };
    let alone = vector(&loaded, None);
    assert_eq!(alone, vector(&loaded, Some(&[0.0, 0.0])), "no patch is there");
    assert_ne!(alone, vector(&loaded, Some(&[0.0, 1.0])));
    // Fewer patches than the most are an image, too; more are none.
    vector(&loaded, Some(&[1.0]));
    let mut outputs = Map::new().unwrap();
    let too_many = batch(Some(&[1.0; 5]));
    let error = loaded.model.forward(&Call::inference(0), &too_many, &mut outputs).unwrap_err();
    assert!(error.to_string().contains("max_patch_position_embeddings"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    for (config, expected) in [
        (json!({"hidden_size": 6, "num_attention_heads": 4}), "num_attention_heads"),
        (json!({"image_size": 10, "patch_size": 4}), "image_size"),
        (json!({"image_size": 8, "patch_size": 4, "patch_feature_size": 47}), "patch_feature_size"),
        (
            json!({"image_size": 8, "patch_size": 4, "patch_feature_size": 48, "max_patch_position_embeddings": 3}),
            "max_patch_position_embeddings",
        ),
        (json!({"patch_type_vocab_size": 1}), "patch_type_vocab_size"),
        (json!({"num_hidden_layers": 1_000_000}), "num_hidden_layers"),
    ] {
        let error = refusal(config);
        assert!(error.contains(expected), "{error}");
    }
    let small = json!({"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 0, "num_attention_heads": 1,
        "intermediate_size": 4, "patch_feature_size": 3});
    let loaded = load(&small);
    for (field, len, expected) in [
        ("patches", 4, "n * 3"),
        ("pixels", 12, "image_size"),
        ("patch_mask", 3, "a number for each patch"),
    ] {
        let mut row = Row::new().unwrap();
        row.put_tokens("ids", &[1]).unwrap();
        if field == "patch_mask" {
            row.put_f32("patches", &[0.0; 6]).unwrap();
        }
        row.put_f32(field, &vec![0.0; len]).unwrap();
        let batch = Map::from_rows(&[&row]).unwrap();
        let mut outputs = Map::new().unwrap();
        let error = loaded.model.forward(&Call::inference(0), &batch, &mut outputs).unwrap_err();
        assert!(error.to_string().contains(expected), "{field}: {error}");
    }
    // What the model reads and writes is told to apps.
    let info: &ModelInfo = loaded.model.info();
    assert_eq!((info.inputs["patches"], info.inputs["patch_mask"]), (192, 64));
    assert!(info.outputs.contains(&"alignment_logits".to_owned()));
}

/// What `easytransfer plugin check` holds every plugin to.
#[test]
fn the_plugin_passes_every_check() {
    let report = check_record(linked::zoo_imagebert::PluginRecord::get()).unwrap();
    assert!(report.is_good(), "{report}");
    for check in [
        "a gradient reaches every parameter",
        "gradient along a direction equals finite differences",
    ] {
        let passed = report.lines.iter().filter(|line| line.verdict == Verdict::Passed);
        assert_eq!(passed.filter(|line| line.check == check).count(), 1, "{report}");
    }
}
