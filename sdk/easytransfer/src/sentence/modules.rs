//! The modules of `modules.json`.

use std::path::{Component, Path};

use easytransfer_train::model::network::read_json;
use easytransfer_train::{Error, Result};
use serde_json::{Value, json};

use super::Recipe;
use super::config::Config;

/// Names of the file beside an encoder, the first that is there and not empty counts.
const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// The poolings in the order in which their vectors are put end to end when the old keys name several.
const OLD_POOLINGS: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

/// Classes of activations that PyTorch makes without arguments, and what they are called here.
const ACTIVATIONS: [(&str, &str); 6] = [
    ("Tanh", "tanh"),
    ("Identity", "none"),
    ("ReLU", "relu"),
    ("GELU", "gelu"),
    ("Sigmoid", "sigmoid"),
    ("SiLU", "silu"),
];

/// Tokens that vocabularies have in capitals.
const CAPITAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// An entry of `modules.json`.
struct Entry<'a> {
    name: &'a str,
    path: &'a str,
    class: &'a str,
}

/// Reads `modules.json` at `path` and what it names.
pub fn read(path: &Path, directory: &Path, recipe: &mut Recipe) -> Result<()> {
    let fault = |message: String| Error::Config { origin: path.display().to_string(), message };
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let list = json.as_array().ok_or_else(|| fault("expected a list of modules".to_owned()))?;
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let part = |key: &str| {
            item[key]
                .as_str()
                .ok_or_else(|| fault(format!("module {index}: expected a text under `{key}`")))
        };
        let entry = Entry { name: part("name")?, path: part("path")?, class: part("type")? };
        if entries.iter().any(|other| other.name == entry.name) {
            return Err(fault(format!(
                "module {index}: expected a name of its own, found `{}` again",
                entry.name
            )));
        }
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(entry.path).components().all(inside) || entry.path.contains('\\') {
            return Err(fault(format!(
                "module {index}: path: expected a folder inside the model, found `{}`",
                entry.path
            )));
        }
        entries.push(entry);
    }
    let mut modules = Vec::new();
    let mut has_pooling = false;
    recipe.options.insert("normalize".to_owned(), json!(false));
    for (index, entry) in entries.iter().enumerate() {
        let folder = directory.join(entry.path);
        let owner = if entry.path.is_empty() { entry.name } else { entry.path };
        let scope = format!("modules.{index}");
        let class = entry.class.rsplit('.').next().unwrap_or(entry.class);
        let is_ours = entry.class.starts_with("sentence_transformers.");
        match (class, index) {
            ("Transformer", 0) if is_ours => {
                recipe.encoder = folder;
                transformer(&recipe.encoder.clone(), recipe, true)?;
            }
            ("Pooling", 1) if is_ours => {
                pooling(&Config::read(&folder, owner)?, recipe)?;
                has_pooling = true;
            }
            ("Dense", 2..) if is_ours => {
                modules.push(dense(&Config::read(&folder, owner)?, &scope)?);
                recipe.weights.push((folder, scope));
            }
            ("LayerNorm", 2..) if is_ours => {
                let config = Config::read(&folder, owner)?;
                config.known(&["dimension"])?;
                let dimension = config.required("dimension")?;
                modules.push(json!({"kind": "layer_norm", "scope": scope, "dimension": dimension}));
                recipe.weights.push((folder, scope));
            }
            ("Normalize", 2..) if is_ours => {
                let config = Config::read(&folder, owner)?;
                config.known(&["module_input_name", "module_output_name"])?;
                of_sentences(&config)?;
                modules.push(json!({"kind": "normalize"}));
            }
            // It acts in training only.
            ("Dropout", 2..) if is_ours => {}
            _ => {
                return Err(fault(format!(
                    "module {owner}: type: expected Transformer, then Pooling, then any of Dense, LayerNorm, Normalize and Dropout of \
                     sentence_transformers, found `{}` at place {index}",
                    entry.class
                )));
            }
        }
    }
    if !has_pooling {
        return Err(fault(format!(
            "expected a Transformer and a Pooling, found {} modules",
            entries.len()
        )));
    }
    recipe.options.insert("modules".to_owned(), Value::Array(modules));
    Ok(())
}

/// Reads what stands beside an encoder; `listed` in `modules.json`, where its length limits texts too.
pub fn transformer(folder: &Path, recipe: &mut Recipe, listed: bool) -> Result<()> {
    let mut config = Config::new(folder, "Transformer", Value::Null);
    for name in TRANSFORMER_CONFIGS {
        let path = folder.join(name);
        let values = if path.exists() { read_json(&path)? } else { Value::Null };
        if values.as_object().is_some_and(|values| !values.is_empty()) {
            config = Config::new(&path, "Transformer", values);
            break;
        }
    }
    config.known(&[
        "transformer_task",
        "modality_config",
        "module_output_name",
        "processing_kwargs",
        "unpad_inputs",
        "query_length",
        "document_length",
        "query_expansion",
        "max_seq_length",
        "do_lower_case",
        "tokenizer_name_or_path",
        "model_args",
        "model_kwargs",
        "tokenizer_args",
        "processor_kwargs",
        "config_args",
        "config_kwargs",
    ])?;
    config.only("transformer_task", &[json!("feature-extraction")])?;
    config.only("module_output_name", &[json!("token_embeddings")])?;
    let forward = json!({"method": "forward", "method_output_name": "last_hidden_state"});
    if config.has("modality_config") && config.get("modality_config")["text"] != forward {
        return Err(config.wrong("modality_config", &format!("{forward} for `text`")));
    }
    // Those two concern queries and documents of other kinds of models, and nobody has said which a text is.
    config.only("query_expansion", &[])?;
    config.only("tokenizer_name_or_path", &[])?;
    // How the same is computed: the kind of attention, how a file is read.
    let model = [
        "attn_implementation",
        "low_cpu_mem_usage",
        "use_safetensors",
        "trust_remote_code",
        "add_pooling_layer",
    ];
    for (old, new, harmless) in [
        ("model_args", "model_kwargs", &model[..]),
        (
            "tokenizer_args",
            "processor_kwargs",
            &["model_max_length", "use_fast", "trust_remote_code", "padding_side"],
        ),
        ("config_args", "config_kwargs", &["trust_remote_code", "use_cache"]),
    ] {
        for key in [old, new] {
            let given = config.get(key).as_object();
            if given.is_some_and(|given| given.keys().any(|key| !harmless.contains(&key.as_str())))
            {
                return Err(config.wrong(key, &format!("nothing but {}", harmless.join(", "))));
            }
        }
    }
    if let Some(length) = max_length(&config, folder, listed)? {
        recipe.options.insert("max_length".to_owned(), json!(length));
    }
    if config.flag("do_lower_case", false)? {
        recipe.options.insert("lower_case".to_owned(), json!(true));
        recipe.options.insert("verbatim".to_owned(), json!(verbatim(folder)?));
    }
    Ok(())
}

/// Most tokens of a text, as far as the files say: those of the call, of the module, of the tokenizer. The model has
/// a limit of its own.
fn max_length(config: &Config, folder: &Path, listed: bool) -> Result<Option<u64>> {
    let positive = |key: &str, value: &Value| -> Result<Option<u64>> {
        match value {
            Value::Null => Ok(None),
            value => {
                match value.as_f64().filter(|length| *length >= 1.0 && length.fract() == 0.0) {
                    // The tokenizers of transformers write 10^30 for no limit.
                    Some(length) => Ok(Some(length.min(1e9) as u64)),
                    None => Err(config.wrong(key, "a whole number of at least 1")),
                }
            }
        }
    };
    match config.get("processing_kwargs") {
        Value::Null => {}
        Value::Object(groups) => {
            let is_empty = |group: &Value| group.as_object().is_some_and(serde_json::Map::is_empty);
            for (name, group) in groups {
                let only_length = group
                    .as_object()
                    .is_some_and(|group| group.keys().all(|key| key == "max_length"));
                if !(is_empty(group) || name == "text" && only_length) {
                    return Err(
                        config.wrong("processing_kwargs", "nothing but a max_length of `text`")
                    );
                }
            }
            if let Some(length) = positive(
                "processing_kwargs",
                &config.get("processing_kwargs")["text"]["max_length"],
            )? {
                return Ok(Some(length));
            }
        }
        _ => return Err(config.wrong("processing_kwargs", "options by kind of input")),
    }
    for key in ["processor_kwargs", "tokenizer_args"] {
        if let Some(length) = positive(key, &config.get(key)["model_max_length"])? {
            return Ok(Some(length));
        }
    }
    if let Some(length) = positive("max_seq_length", config.get("max_seq_length"))? {
        return Ok(Some(length));
    }
    if !listed {
        return Ok(None);
    }
    let path = folder.join("tokenizer_config.json");
    let tokenizer = if path.exists() { read_json(&path)? } else { Value::Null };
    let tokenizer = Config::new(&path, "Transformer", tokenizer);
    for key in ["model_max_length", "max_len"] {
        if let Some(length) = positive(key, tokenizer.get(key))? {
            return Ok(Some(length));
        }
    }
    Ok(Some(1_000_000_000))
}

/// Tokens that the tokenizer finds before it changes a text: they keep their capitals.
fn verbatim(folder: &Path) -> Result<Vec<String>> {
    let mut tokens: Vec<String> = CAPITAL_TOKENS.map(str::to_owned).to_vec();
    let mut take = |token: &Value| {
        if token["normalized"] != json!(true)
            && let Some(text) = token["content"].as_str()
            && !tokens.iter().any(|known| known == text)
        {
            tokens.push(text.to_owned());
        }
    };
    let read = |name: &str| {
        let path = folder.join(name);
        if path.exists() { read_json(&path) } else { Ok(Value::Null) }
    };
    read("tokenizer.json")?["added_tokens"].as_array().into_iter().flatten().for_each(&mut take);
    let config = read("tokenizer_config.json")?;
    config["added_tokens_decoder"]
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::values)
        .for_each(take);
    // The longest first, so that a token that begins another does not hide it.
    tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
    Ok(tokens)
}

/// Reads a pooling, in the spelling of one key or of a flag for each kind.
pub fn pooling(config: &Config, recipe: &mut Recipe) -> Result<()> {
    let mut known =
        vec!["word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"];
    known.extend(OLD_POOLINGS.map(|(key, _)| key));
    config.known(&known)?;
    if !config.has("word_embedding_dimension") && !config.has("embedding_dimension") {
        return Err(config.wrong("embedding_dimension", "a whole number"));
    }
    let kinds = OLD_POOLINGS.map(|(_, kind)| kind);
    let expected = format!("one of {}, or a list of them", kinds.join(", "));
    let is_kind = |value: &Value| value.as_str().is_some_and(|name| kinds.contains(&name));
    let pooling = match config.get("pooling_mode") {
        _ if !config.has("pooling_mode") => {
            let mut chosen = Vec::new();
            for (key, kind) in OLD_POOLINGS {
                if config.flag(key, false)? {
                    chosen.push(json!(kind));
                }
            }
            if chosen.is_empty() { vec![json!("mean")] } else { chosen }
        }
        Value::Array(list) if !list.is_empty() && list.iter().all(is_kind) => list.clone(),
        one if is_kind(one) => vec![one.clone()],
        _ => return Err(config.wrong("pooling_mode", &expected)),
    };
    recipe.options.insert("pooling".to_owned(), Value::Array(pooling));
    recipe.options.insert("pool_prompt".to_owned(), json!(config.flag("include_prompt", true)?));
    Ok(())
}

fn dense(config: &Config, scope: &str) -> Result<Value> {
    config.known(&[
        "in_features",
        "out_features",
        "bias",
        "activation_function",
        "module_input_name",
        "module_output_name",
        "use_residual",
    ])?;
    let (input, output) = (config.required("in_features")?, config.required("out_features")?);
    if output == 0 {
        return Err(config.wrong("out_features", "at least 1"));
    }
    let activation = if config.has("activation_function") {
        // Only PyTorch's own are known; a class of another package is code.
        let name = config.text("activation_function")?.unwrap_or_default();
        let class =
            name.strip_prefix("torch.nn.").map(|path| path.rsplit('.').next().unwrap_or(path));
        let known = ACTIVATIONS.iter().find(|(known, _)| Some(*known) == class);
        let Some((_, activation)) = known else {
            let names: Vec<&str> = ACTIVATIONS.iter().map(|(class, _)| *class).collect();
            let expected = format!("one of the classes {} of torch.nn", names.join(", "));
            return Err(config.wrong("activation_function", &expected));
        };
        activation
    } else {
        "tanh"
    };
    of_sentences(config)?;
    Ok(json!({
        "kind": "dense",
        "scope": scope,
        "in_features": input,
        "out_features": output,
        "bias": config.flag("bias", true)?,
        "activation": activation,
        "residual": config.flag("use_residual", false)?,
    }))
}

/// Errors: the module works on something else than the vectors of texts.
fn of_sentences(config: &Config) -> Result<()> {
    for key in ["module_input_name", "module_output_name"] {
        config.only(key, &[json!("sentence_embedding")])?;
    }
    Ok(())
}
