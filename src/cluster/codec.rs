//! Encodes our operators and functions as bytes; everything else goes to Ballista's codec.
//!
//! Driver, scheduler and executors must run the same version of this file. A plan carries which model to score with,
//! by version and weights' hash, never weights: the process that runs it loads them from its own `models/` folder.

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use chrono_tz::Tz;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::from_proto::parse_physical_expr;
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use crate::failure::Failure;
use crate::features::content_key::ContentKey;
use crate::features::erased_users::{ErasedUsers, IsErased};
use crate::features::functions::{Bucket, Constant, LocalTime, NonBlank, RowJson};
use crate::features::mask_text::MaskText;
use crate::features::repeated_items::RepeatedItem;
use crate::features::value_of_key::ValueOfKey;
use crate::features::{connected_groups, count_days, last_events, most_named, ordered_list};
use crate::lake::file_columns::ReadFunction;
use crate::score::functions::ScoringFunction;
use crate::score::models::{ModelRef, Models};
use crate::score::operator::{ScoreExec, Scoring};
use crate::score::torch_functions::{Declaration, TorchFunction, as_torch_function};
use crate::tables::write_files::{WriteFilesExec, WriteTarget};

/// Marks our bytes: no protobuf message begins with a zero, so they cannot be Ballista's.
const MARK: &[u8] = b"\0intentcast.1\0";

#[derive(Serialize, Deserialize)]
enum Operator {
    Write(WriteTarget),
    /// A call of the scoring function of this name.
    Score {
        function: String,
        arguments: Vec<Vec<u8>>,
        column: String,
        model: ModelRef,
    },
}

#[derive(Serialize, Deserialize)]
enum Function {
    Constant(Vec<u8>),
    /// The IANA name of the zone.
    Local(String),
    RowJson,
    NonBlank,
    MaskText,
    /// `user_bucket` or `item_bucket`, by its name.
    Bucket,
    ContentKey,
    ValueOfKey,
    /// The items of which the catalogue has several rows.
    RepeatedItem(HashSet<String>),
    /// The persons who were erased.
    IsErased(ErasedUsers),
    /// A function with which scans convert columns, by its name.
    Read,
    ConnectedGroups,
    CountDays,
    LastEvents,
    MostNamed,
    OrderedList,
    /// A user's function, by its module's location and hash, never its weights.
    Torch(Declaration),
}

fn write<T: Serialize>(message: &T, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.extend_from_slice(MARK);
    Ok(serde_json::to_writer(bytes, message).map_err(Failure::bug)?)
}

/// Decodes our bytes; returns `None` for bytes that are not ours.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<Option<T>> {
    let Some(ours) = bytes.strip_prefix(MARK) else { return Ok(None) };
    let message = serde_json::from_slice(ours).map_err(other_version)?;
    Ok(Some(message))
}

fn other_version(found: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("received a plan from another version of intentcast: {found}"))
        .hint("run the same binary as driver, scheduler and executor")
}

/// Encodes and decodes plans for driver, scheduler and executors.
#[derive(Debug)]
pub(crate) struct PlanCodec {
    pub(crate) models: Arc<Models>,
    pub(crate) ballista: BallistaPhysicalExtensionCodec,
}

impl PlanCodec {
    pub(crate) fn new(models: Arc<Models>) -> Self {
        Self { models, ballista: BallistaPhysicalExtensionCodec::default() }
    }
}

impl PhysicalExtensionCodec for PlanCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(operator) = read::<Operator>(bytes)? else {
            return self.ballista.try_decode(bytes, inputs, ctx, converter);
        };
        let [input] = inputs else { return Err(Failure::bug("our operators have one input").into()) };
        let input = Arc::clone(input);
        match operator {
            Operator::Write(target) => Ok(Arc::new(WriteFilesExec::new(input, target))),
            Operator::Score { function, arguments, column, model } => {
                let function =
                    ScoringFunction::find(&function).ok_or_else(|| other_version(format!("no function {function}")))?;
                let schema = input.schema();
                let argument = |bytes: &Vec<u8>| {
                    let node = PhysicalExprNode::decode(bytes.as_slice()).map_err(Failure::bug)?;
                    parse_physical_expr(&node, ctx, &schema, self)
                };
                let arguments = arguments.iter().map(argument).collect::<Result<_>>()?;
                let scoring = Scoring { function, arguments, column, model };
                Ok(Arc::new(ScoreExec::new(input, scoring, Arc::clone(&self.models))?))
            }
        }
    }

    fn try_encode(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(files) = plan.downcast_ref::<WriteFilesExec>() {
            return write(&Operator::Write(files.target().clone()), bytes);
        }
        let Some(exec) = plan.downcast_ref::<ScoreExec>() else {
            return self.ballista.try_encode(plan, bytes, converter);
        };
        let Scoring { function, arguments, column, model } = exec.scoring.clone();
        let argument = |e| Ok(serialize_physical_expr(e, self)?.encode_to_vec());
        let arguments = arguments.iter().map(argument).collect::<Result<_>>()?;
        let function = function.name().into();
        write(&Operator::Score { function, arguments, column, model }, bytes)
    }

    fn try_decode_udf(&self, name: &str, bytes: &[u8]) -> Result<Arc<ScalarUDF>> {
        Ok(Arc::new(match read::<Function>(bytes)? {
            Some(Function::Constant(value)) => {
                let value = datafusion_proto::protobuf::ScalarValue::decode(value.as_slice()).map_err(Failure::bug)?;
                Constant::new(name, ScalarValue::try_from(&value).map_err(Failure::bug)?).into()
            }
            Some(Function::Local(zone)) => {
                let zone: Tz = zone.parse().map_err(|e| Failure::usage(format!("{name}: {e}")))?;
                LocalTime::from_name(name, zone)?.into()
            }
            Some(Function::RowJson) => RowJson::default().into(),
            Some(Function::NonBlank) => NonBlank::default().into(),
            Some(Function::MaskText) => MaskText::default().into(),
            Some(Function::Bucket) => Bucket::from_name(name)?.into(),
            Some(Function::ContentKey) => ContentKey::default().into(),
            Some(Function::ValueOfKey) => ValueOfKey::default().into(),
            Some(Function::RepeatedItem(ids)) => RepeatedItem::new(Arc::new(ids)).into(),
            Some(Function::IsErased(users)) => IsErased::new(Arc::new(users)).into(),
            Some(Function::Read) => ReadFunction::from_name(name)?.into(),
            Some(Function::Torch(declaration)) => {
                TorchFunction::from_plan(declaration, Arc::new(self.models.config().clone())).into()
            }
            Some(
                Function::ConnectedGroups
                | Function::CountDays
                | Function::LastEvents
                | Function::MostNamed
                | Function::OrderedList,
            )
            | None => {
                return self.ballista.try_decode_udf(name, bytes);
            }
        }))
    }

    fn try_encode_udf(&self, node: &ScalarUDF, bytes: &mut Vec<u8>) -> Result<()> {
        let function: &dyn Any = node.inner().as_ref();
        if let Some(constant) = function.downcast_ref::<Constant>() {
            let value = datafusion_proto::protobuf::ScalarValue::try_from(&constant.value).map_err(Failure::bug)?;
            write(&Function::Constant(value.encode_to_vec()), bytes)
        } else if let Some(local) = function.downcast_ref::<LocalTime>() {
            write(&Function::Local(local.zone.name().into()), bytes)
        } else if function.is::<RowJson>() {
            write(&Function::RowJson, bytes)
        } else if function.is::<NonBlank>() {
            write(&Function::NonBlank, bytes)
        } else if function.is::<MaskText>() {
            write(&Function::MaskText, bytes)
        } else if function.is::<Bucket>() {
            write(&Function::Bucket, bytes)
        } else if function.is::<ContentKey>() {
            write(&Function::ContentKey, bytes)
        } else if function.is::<ValueOfKey>() {
            write(&Function::ValueOfKey, bytes)
        } else if let Some(repeated) = function.downcast_ref::<RepeatedItem>() {
            write(&Function::RepeatedItem(HashSet::clone(&repeated.ids)), bytes)
        } else if let Some(erased) = function.downcast_ref::<IsErased>() {
            write(&Function::IsErased(ErasedUsers::clone(&erased.users)), bytes)
        } else if function.is::<ReadFunction>() {
            write(&Function::Read, bytes)
        } else if let Some(ours) = as_torch_function(node) {
            write(&Function::Torch(ours.declaration.clone()), bytes)
        } else {
            self.ballista.try_encode_udf(node, bytes)
        }
    }

    fn try_decode_udaf(&self, name: &str, bytes: &[u8]) -> Result<Arc<AggregateUDF>> {
        match read::<Function>(bytes)? {
            Some(Function::ConnectedGroups) => Ok(Arc::new(connected_groups::connected_groups())),
            Some(Function::CountDays) => Ok(Arc::new(count_days::count_days())),
            Some(Function::LastEvents) => Ok(Arc::new(last_events::last_events())),
            Some(Function::MostNamed) => Ok(Arc::new(most_named::most_named())),
            Some(Function::OrderedList) => Ok(Arc::new(ordered_list::ordered_list())),
            _ => self.ballista.try_decode_udaf(name, bytes),
        }
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, bytes: &mut Vec<u8>) -> Result<()> {
        match node.name() {
            name if name == connected_groups::connected_groups().name() => write(&Function::ConnectedGroups, bytes),
            name if name == count_days::count_days().name() => write(&Function::CountDays, bytes),
            name if name == last_events::last_events().name() => write(&Function::LastEvents, bytes),
            name if name == most_named::most_named().name() => write(&Function::MostNamed, bytes),
            name if name == ordered_list::ordered_list().name() => write(&Function::OrderedList, bytes),
            _ => self.ballista.try_encode_udaf(node, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine;
    use crate::lake::stores::Location;
    use crate::model::bundle::Registry;
    use crate::model::labels::{HeadSizes, LabelHead, LabelStructure};
    use crate::model::vision::{
        Architecture, ImageEncoderCard, ImageModelCard, ImageModelWeights, ImageNetwork, Preprocess,
    };
    use crate::score::models::ContentWrites;
    use crate::score::operator;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::SessionContext;
    use datafusion_proto::bytes::{
        physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
    };
    use tch::{CModule, Device, Kind, Tensor, nn};

    /// Returns `plus(1)` as computed by a decoded function.
    async fn called(codec: &PlanCodec, bytes: &[u8]) -> crate::failure::Result<String> {
        let ctx = SessionContext::new();
        ctx.register_udf(codec.try_decode_udf("plus", bytes)?.as_ref().clone());
        let rows = ctx.sql("SELECT plus(1) AS a").await?.collect().await?;
        Ok(arrow::util::pretty::pretty_format_batches(&rows)?.to_string())
    }

    /// Writes an image model of random weights to the registry of an in-memory output; returns its version.
    async fn image_model(config: &Config) -> String {
        let store = nn::VarStore::new(Device::Cpu);
        let card = ImageEncoderCard::new(Architecture::Cnn, Preprocess { resize: 18, crop: 16, ..Default::default() });
        ImageNetwork::new(&(store.root() / "image"), &card);
        LabelHead::new(&(store.root() / "head"), LabelStructure::Single, HeadSizes { width: card.width(), labels: 2 });
        let below = |part: &str| -> Vec<(String, Tensor)> {
            let named = store.variables().into_iter();
            named.filter_map(|(name, weight)| Some((name.strip_prefix(part)?.to_string(), weight))).collect()
        };
        let parts = ImageModelWeights { encoder_card: &card, encoder: below("image."), head: below("head.") };
        let model: ImageModelCard = serde_json::from_value(serde_json::json!({
            "format": 1, "version": "", "trained_at": "2026-03-01", "table": [], "image_column": "", "split": "",
            "encoder": "", "encoder_hash": "", "strategy": "all", "kind": "single", "labels": ["mug", "lamp"],
            "weights_hash": "", "figures": {}
        }))
        .unwrap();
        let output = Location::open(&config.output.uri, &config.s3).unwrap();
        Registry(output.folder("models")).write_image(model, parts).await.unwrap().version
    }

    #[tokio::test]
    async fn a_decoded_plan_classifies_pictures_alike() {
        let mut config = Config::default();
        config.output.uri = "memory://codec-image/out".into();
        config.score.device = "cpu".into();
        let version = image_model(&config).await;
        let side = || PlanCodec::new(Arc::new(Models::new(&config).unwrap()));
        let (here, there) = (side(), side());
        let ctx =
            operator::install(&engine::session(&config).unwrap(), Arc::clone(&here.models), ContentWrites::SessionOnly);
        let picture = include_bytes!("../../tests/fixtures/vision/pictures/rgb.png");
        let hex: String = picture.iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!(
            "SELECT classify_image(decode('{hex}', 'hex'), '{version}') AS labels, \
             classify_image(decode('{hex}', 'hex'), '{version}', 'lamp') AS lamp, \
             classify_image(NULL, '{version}', 'lamp') AS none, classify_image(decode('00', 'hex'), '{version}') AS bad"
        );
        let plan = ctx.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        let bytes = physical_plan_to_bytes_with_extension_codec(Arc::clone(&plan), &here).unwrap();
        let arrived = physical_plan_from_bytes_with_extension_codec(&bytes, &ctx.task_ctx(), &there).unwrap();
        let ours = collect(plan, ctx.task_ctx()).await.unwrap();
        assert_eq!(collect(arrived, ctx.task_ctx()).await.unwrap(), ours);
        assert_eq!((here.models.loaded(), there.models.loaded()), (1, 1));
        let row = &ours[0];
        let lamp = row.column(1).as_primitive::<Float64Type>().value(0);
        let labels = row.column(0).as_list::<i32>().value(0);
        assert_eq!(labels.as_struct().column(1).as_primitive::<Float64Type>().value(1), lamp);
        assert!((0.0..=1.0).contains(&lamp) && row.column(2).is_null(0) && row.column(3).is_null(0));
    }

    #[tokio::test]
    async fn a_users_function_travels_as_its_declaration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plus.pt");
        let example = [Tensor::ones([2], (Kind::Float, Device::Cpu))];
        let traced = CModule::create_by_tracing("Plus", "forward", &example, &mut |xs: &[Tensor]| vec![&xs[0] + 41.0]);
        traced.unwrap().save(&path).unwrap();
        let mut config = Config::default();
        config.functions.folders = vec![folder.path().display().to_string()];
        let ctx = engine::session(&config).unwrap();
        let sql = format!("CREATE FUNCTION plus(x FLOAT) RETURNS FLOAT LANGUAGE TORCH AS '{}'", path.display());
        ctx.sql(&sql).await.unwrap();

        let codec = |config: &Config| PlanCodec::new(Arc::new(Models::new(config).unwrap()));
        let mut bytes = Vec::new();
        let made = Arc::clone(&ctx.state().scalar_functions()["plus"]);
        codec(&config).try_encode_udf(&made, &mut bytes).unwrap();
        assert!(called(&codec(&config), &bytes).await.unwrap().contains("42.0"));
        let nowhere = called(&codec(&Config::default()), &bytes).await.unwrap_err();
        assert_eq!(nowhere.kind.exit_code(), 2, "{nowhere}");
        let hash = &as_torch_function(&made).unwrap().declaration.hash;
        let other = String::from_utf8(bytes).unwrap().replace(hash, "0123");
        let changed = called(&codec(&config), other.as_bytes()).await.unwrap_err();
        assert_eq!(changed.kind.exit_code(), 6);
        assert!(changed.message.contains("expects a module of hash 0123"), "{changed}");
    }
}
