//! Knowledge distillation from a trained bundle into any encoder.
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    Error, MODEL, Map, Phases, Result, Session, Strategy, Tensor, nn, out_of_range,
};
use serde::Deserialize;
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

/// Plain distillation (Hinton et al. 2015): loss = (1 - alpha) * own loss + alpha * T² * KL(teacher_T ‖ student_T), where both distributions are
/// softmax(logits / T). For regression, where there is one logit, the second term is the mean squared difference.
///
/// The teacher is a trained bundle of the same app with the same labels; it reads every text with its own tokenizer, so that teacher and
/// student may be of different families.
pub struct Distill {
    options: Options,
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
        Ok(Self { options })
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::OUTPUTS
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        session.load_model(TEACHER, &self.options.teacher)?;
        let student = session.describe(MODEL)?["app"]["labels"].clone();
        let teacher = session.describe(TEACHER)?["app"]["labels"].clone();
        if student != teacher {
            return Err(Error::bad_input(format!(
                "teacher {}: its labels are {teacher}, those of the training data are {student}; a teacher must be trained on the same labels",
                self.options.teacher
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
        let soft = soft_loss(&student, &teacher, self.options.temperature)?;
        session.set_loss_weight(1.0 - self.options.alpha)?;
        session.add_loss("distill", &soft, self.options.alpha)
    }
}

/// T² * KL(softmax(teacher / T) ‖ softmax(student / T)), mean over rows; the mean squared difference for one logit.
fn soft_loss(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    if student.extent(-1)? == 1 {
        return student.sub(teacher)?.sqr()?.mean(&[], false);
    }
    let teacher_log = nn::log_softmax(&teacher.affine(1.0 / temperature, 0.0)?)?;
    let student_log = nn::log_softmax(&student.affine(1.0 / temperature, 0.0)?)?;
    teacher_log
        .exp()?
        .mul(&teacher_log.sub(&student_log)?)?
        .sum(&[-1], false)?
        .mean(&[], false)?
        .affine(temperature * temperature, 0.0)
}

easytransfer_plugin::export! {
    id: "tl-distill",
    strategies: [Distill],
}
