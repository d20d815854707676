//! Knowledge distillation from a trained bundle into any encoder.
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    Error, MODEL, Map, Phases, Result, Session, Strategy, Tensor, nn, out_of_range,
};
use serde::Deserialize;
use serde_json::Value;
use std::ffi::CStr;

const TEACHER: &str = "teacher";

/// Options of [`Distill`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    teacher: String,
    #[serde(default = "default_temperature")]
    temperature: f64,
    #[serde(default = "default_alpha")]
    alpha: f64,
}

fn default_temperature() -> f64 {
    2.0
}

fn default_alpha() -> f64 {
    0.5
}

/// Plain distillation (Hinton et al. 2015): loss = (1 - alpha) * own loss + alpha * soft loss, where the soft loss is
///
/// | app | soft loss |
/// |---|---|
/// | one class per row | T² * KL(softmax(teacher / T) ‖ softmax(student / T)), mean over rows |
/// | independent labels | T² * KL(Bernoulli(sigmoid(teacher / T)) ‖ Bernoulli(sigmoid(student / T))), mean over rows and labels, as the own loss is |
/// | regression | (student - teacher)², mean over rows |
///
/// What an app is follows from `problem_type` of its entries for config.json; without it, from the number of logits.
///
/// The teacher is a trained bundle of the same app with the same labels; it reads every text with its own tokenizer,
/// so that teacher and student may be of different families.
pub struct Distill {
    options: Options,
    targets: Targets,
}

/// What a teacher's logits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// One class per row.
    Classes,
    /// Any number of labels per row, each by itself.
    Labels,
    /// A number per row.
    Values,
}

/// What the logits of an app say, from its description.
fn targets_of(app: &Value) -> Targets {
    match app["config"]["problem_type"].as_str() {
        Some("multi_label_classification") => Targets::Labels,
        Some("regression") => Targets::Values,
        Some(_) => Targets::Classes,
        None if app["labels"].as_array().is_none_or(|labels| labels.len() < 2) => Targets::Values,
        None => Targets::Classes,
    }
}

impl Strategy for Distill {
    const NAME: &'static CStr = c"distill";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"required":["teacher"],"properties":{
"teacher":{"type":"string","description":"directory of a trained bundle of the same app with the same labels"},
"temperature":{"type":"number","exclusiveMinimum":0,"default":2},
"alpha":{"type":"number","minimum":0,"maximum":1,"default":0.5,"description":"weight of the teacher; 1 - alpha is that of the labels"}}}"#;
    type Options = Options;

    fn new(options: Options) -> Result<Self> {
        if options.temperature <= 0.0 {
            return Err(out_of_range("temperature", "more than 0", options.temperature));
        }
        if !(0.0..=1.0).contains(&options.alpha) {
            return Err(out_of_range("alpha", "0 <= alpha <= 1", options.alpha));
        }
        Ok(Self { options, targets: Targets::Classes })
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::OUTPUTS
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        session.load_model(TEACHER, &self.options.teacher)?;
        let student = &session.describe(MODEL)?["app"];
        let teacher = &session.describe(TEACHER)?["app"];
        if student["labels"] != teacher["labels"] {
            return Err(Error::bad_input(format!(
                "teacher {}: its labels are {}, those of the training data are {}; a teacher must be trained on the same labels",
                self.options.teacher, teacher["labels"], student["labels"]
            )));
        }
        self.targets = targets_of(student);
        if targets_of(teacher) != self.targets {
            return Err(Error::bad_input(format!(
                "teacher {}: its problem is {}, that of the student is {}; both must be of one kind (app.problem)",
                self.options.teacher,
                teacher["config"]["problem_type"],
                student["config"]["problem_type"]
            )));
        }
        Ok(())
    }

    fn on_outputs(&mut self, session: &mut Session<'_>, batch: &Map, outputs: &Map) -> Result<()> {
        let student = outputs.get("logits")?;
        let teacher = session.forward(TEACHER, batch, false, 0)?.get("logits")?;
        if teacher.shape() != student.shape() {
            return Err(Error::bad_input(format!(
                "teacher {}: logits have shape {:?}, the student's have {:?}",
                self.options.teacher,
                teacher.shape(),
                student.shape()
            )));
        }
        let soft = soft_loss(self.targets, &student, &teacher, self.options.temperature)?;
        session.set_loss_weight(1.0 - self.options.alpha)?;
        session.add_loss("distill", &soft, self.options.alpha)
    }
}

/// The soft loss of [`Distill`] over logits [rows, labels].
pub fn soft_loss(
    targets: Targets,
    student: &Tensor,
    teacher: &Tensor,
    temperature: f64,
) -> Result<Tensor> {
    let soften = |logits: &Tensor| logits.affine(1.0 / temperature, 0.0);
    let loss = match targets {
        Targets::Values => return student.sub(teacher)?.sqr()?.mean(&[], false),
        Targets::Labels => {
            let teacher = soften(teacher)?;
            let wanted = teacher.sigmoid()?;
            // Without the teacher's own entropy, which no gradient sees, the loss of equals would not be 0.
            let cross = nn::binary_cross_entropy(&soften(student)?, &wanted, None)?;
            cross.sub(&nn::binary_cross_entropy(&teacher, &wanted, None)?)?
        }
        Targets::Classes => {
            let teacher_log = nn::log_softmax(&soften(teacher)?)?;
            let student_log = nn::log_softmax(&soften(student)?)?;
            teacher_log
                .exp()?
                .mul(&teacher_log.sub(&student_log)?)?
                .sum(&[-1], false)?
                .mean(&[], false)?
        }
    };
    loss.affine(temperature * temperature, 0.0)
}

easytransfer_plugin::export! {
    id: "tl-distill",
    strategies: [Distill],
}
