//! `CREATE FUNCTION name(args) RETURNS type LANGUAGE TORCH AS 'uri'`: a user's TorchScript module as a SQL function.
//!
//! Rows of a batch go into one forward pass, at most `functions.batch_values_max` numbers at once. A scalar argument is a
//! tensor [rows], `T[n]` is [rows, n]; `T[]` takes lists of any length, and rows are grouped by length, so that no row is
//! ever padded. A null in an argument (or in its list) makes the row's result null; the module does not see the row.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, UInt32Array,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::execution::context::{FunctionFactory, RegisterFunction};
use datafusion::logical_expr::{
    ColumnarValue, CreateFunction, DdlStatement, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use tch::{Device, Kind, Tensor};

use super::modules::{self, Module};
use crate::config::Config;
use crate::failure::{Failure, Result};

/// Rows of the call that tries a new function out.
const PROBE_ROWS: usize = 3;
/// Numbers in each list of that call where the declaration leaves the length open.
const PROBE_LENGTH: usize = 4;

/// What a number is, in SQL and in libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Element {
    Float,
    Double,
    Int,
    Bigint,
    Boolean,
}

impl Element {
    fn of(given: &DataType) -> Option<Self> {
        match given {
            DataType::Float32 => Some(Self::Float),
            DataType::Float64 => Some(Self::Double),
            DataType::Int32 => Some(Self::Int),
            DataType::Int64 => Some(Self::Bigint),
            DataType::Boolean => Some(Self::Boolean),
            _ => None,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Int => DataType::Int32,
            Self::Bigint => DataType::Int64,
            Self::Boolean => DataType::Boolean,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Float => Kind::Float,
            Self::Double => Kind::Double,
            Self::Int => Kind::Int,
            Self::Bigint => Kind::Int64,
            Self::Boolean => Kind::Bool,
        }
    }

    /// Whether a call may pass values of another type, which are then cast.
    fn takes(self, given: &DataType) -> bool {
        match self {
            Self::Float | Self::Double => given.is_numeric() || given.is_null(),
            Self::Int | Self::Bigint => given.is_integer() || given.is_null(),
            Self::Boolean => matches!(given, DataType::Boolean | DataType::Null),
        }
    }

    /// [values], from an array of this type without nulls.
    fn tensor(self, values: &dyn Array) -> Result<Tensor, tch::TchError> {
        match self {
            Self::Float => Tensor::f_from_slice(values.as_primitive::<Float32Type>().values()),
            Self::Double => Tensor::f_from_slice(values.as_primitive::<Float64Type>().values()),
            Self::Int => Tensor::f_from_slice(values.as_primitive::<Int32Type>().values()),
            Self::Bigint => Tensor::f_from_slice(values.as_primitive::<Int64Type>().values()),
            Self::Boolean => Tensor::f_from_slice(&values.as_boolean().values().iter().collect::<Vec<bool>>()),
        }
    }

    /// The values of a flat tensor of this kind.
    fn array(self, flat: &Tensor) -> Result<ArrayRef, tch::TchError> {
        Ok(match self {
            Self::Float => Arc::new(Float32Array::from(Vec::<f32>::try_from(flat)?)),
            Self::Double => Arc::new(Float64Array::from(Vec::<f64>::try_from(flat)?)),
            Self::Int => Arc::new(Int32Array::from(Vec::<i32>::try_from(flat)?)),
            Self::Bigint => Arc::new(Int64Array::from(Vec::<i64>::try_from(flat)?)),
            Self::Boolean => Arc::new(BooleanArray::from(Vec::<bool>::try_from(flat)?)),
        })
    }
}

/// How many numbers a value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    Scalar,
    /// Any number of them.
    List,
    Vector(usize),
}

/// A type that an argument or a result can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Type {
    pub element: Element,
    pub shape: Shape,
}

impl Type {
    fn of(given: &DataType) -> Option<Self> {
        let (element, shape) = match given {
            DataType::List(item) => (item.data_type(), Shape::List),
            DataType::FixedSizeList(item, n) => (item.data_type(), Shape::Vector(usize::try_from(*n).ok()?)),
            other => (other, Shape::Scalar),
        };
        Some(Self { element: Element::of(element)?, shape })
    }

    /// As columns hold it: every list is a plain list.
    fn data_type(self) -> DataType {
        match self.shape {
            Shape::Scalar => self.element.data_type(),
            Shape::List | Shape::Vector(_) => DataType::List(self.item()),
        }
    }

    fn item(self) -> Arc<Field> {
        Arc::new(Field::new_list_field(self.element.data_type(), true))
    }

    fn takes(self, given: &DataType) -> bool {
        match (self.shape, given) {
            (_, DataType::Null) => true,
            (Shape::Scalar, other) => self.element.takes(other),
            (_, DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) => {
                self.element.takes(item.data_type())
            }
            _ => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let element = format!("{:?}", self.element).to_uppercase();
        match self.shape {
            Shape::Scalar => f.write_str(&element),
            Shape::List => write!(f, "{element}[]"),
            Shape::Vector(n) => write!(f, "{element}[{n}]"),
        }
    }
}

/// Everything about a function but the module's weights; travels in plans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Declaration {
    pub name: String,
    /// Name (or its place, from 1) and type.
    pub arguments: Vec<(String, Type)>,
    pub returns: Type,
    pub uri: String,
    /// Of the module's file.
    pub hash: String,
}

/// The function that SQL calls.
#[derive(Debug)]
pub struct TorchFunction {
    pub declaration: Declaration,
    signature: Signature,
    config: Arc<Config>,
    /// Empty until the first call where the function came in a plan: a scheduler handles plans that it never runs.
    module: OnceLock<Arc<Module>>,
}

impl PartialEq for TorchFunction {
    fn eq(&self, other: &Self) -> bool {
        self.declaration == other.declaration
    }
}

impl Eq for TorchFunction {}

impl Hash for TorchFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.declaration.hash(state);
    }
}

impl TorchFunction {
    /// A function of a plan; the module is loaded when it is first called.
    pub fn of_plan(declaration: Declaration, config: Arc<Config>) -> Self {
        Self::new(declaration, Volatility::Immutable, config)
    }

    fn new(declaration: Declaration, volatility: Volatility, config: Arc<Config>) -> Self {
        Self { declaration, signature: Signature::user_defined(volatility), config, module: OnceLock::new() }
    }

    /// The module, loaded where it is not yet; refuses another one than the declaration names.
    pub fn module(&self) -> Result<&Arc<Module>> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let Declaration { uri, hash, .. } = &self.declaration;
        let module = match modules::find(uri, hash, &self.config)? {
            Some(module) => module,
            None => fetch(uri, &self.config)?,
        };
        if module.hash != *hash {
            return Err(Failure::model(format!(
                "{}: the plan asks for a module of hash {hash}, {uri} now has {}",
                self.declaration.name, module.hash
            ))
            .hint("create the function again, and keep a module's file as it is while plans run"));
        }
        Ok(self.module.get_or_init(|| module))
    }

    fn refuse(&self, what: impl fmt::Display) -> Failure {
        Failure::model(format!("function {} ({}): {what}", self.declaration.name, self.declaration.uri))
    }

    /// The results of `rows` rows of arguments that have the declared types.
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let mut groups: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
        for row in 0..rows {
            if let Some(lengths) = self.lengths(arguments, row)? {
                groups.entry(lengths).or_default().push(row as u32);
            }
        }
        let (mut parts, mut places, mut done) = (Vec::new(), vec![None; rows], 0u32);
        for (lengths, members) in &groups {
            let values = lengths.iter().sum::<usize>() + self.declaration.arguments.len() - lengths.len();
            let rows_max = (self.config.functions.batch_values_max as usize / values.max(1)).max(1);
            for chunk in members.chunks(rows_max) {
                parts.push(self.forward(arguments, chunk)?);
                for &row in chunk {
                    places[row as usize] = Some(done);
                    done += 1;
                }
            }
        }
        if parts.is_empty() {
            return Ok(new_null_array(&self.declaration.returns.data_type(), rows));
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(take(&concat(&parts)?, &UInt32Array::from(places), None)?)
    }

    /// The lengths of a row's lists; `None` where something in the row is null.
    fn lengths(&self, arguments: &[ArrayRef], row: usize) -> Result<Option<Vec<usize>>> {
        let mut lengths = Vec::new();
        for ((name, declared), array) in self.declaration.arguments.iter().zip(arguments) {
            if array.is_null(row) {
                return Ok(None);
            }
            if declared.shape == Shape::Scalar {
                continue;
            }
            let list = array.as_list::<i32>();
            let (from, length) = (list.value_offsets()[row] as usize, list.value_length(row) as usize);
            if list.values().null_count() > 0 && list.values().slice(from, length).null_count() > 0 {
                return Ok(None);
            }
            if let Shape::Vector(n) = declared.shape
                && n != length
            {
                return Err(Failure::usage(format!(
                    "function {}: argument {name}: expected {n} numbers, got {length} in row {} of the batch",
                    self.declaration.name,
                    row + 1
                ))
                .hint("filter by array_length, or declare the argument without a length"));
            }
            lengths.push(length);
        }
        Ok(Some(lengths))
    }

    /// One forward pass over some rows, none of them null, whose lists have equal lengths.
    fn forward(&self, arguments: &[ArrayRef], rows: &[u32]) -> Result<ArrayRef> {
        let module = self.module()?;
        let (rows, n) = (UInt32Array::from(rows.to_vec()), rows.len() as i64);
        let mut inputs = Vec::with_capacity(arguments.len());
        for ((_, declared), array) in self.declaration.arguments.iter().zip(arguments) {
            let taken = take(array, &rows, None)?;
            let tensor = match declared.shape {
                Shape::Scalar => declared.element.tensor(&taken)?,
                Shape::List | Shape::Vector(_) => {
                    let list = taken.as_list::<i32>();
                    let (from, end) = (list.value_offsets()[0], list.value_offsets()[rows.len()]);
                    let values = list.values().slice(from as usize, (end - from) as usize);
                    declared.element.tensor(&values)?.f_view([n, i64::from(end - from) / n])?
                }
            };
            inputs.push(tensor.f_to_device(module.device)?);
        }
        let output = module.forward(&inputs).map_err(|why| {
            let shapes: Vec<String> = inputs.iter().map(|t| format!("{:?} {:?}", t.kind(), t.size())).collect();
            let failed = self.refuse(format!("the module failed on {}: {why}", shapes.join(", ")));
            match why.to_string().contains("same device") {
                true => failed.hint(
                    "it holds tensors or casts of the device that it was traced on: make them on its inputs' (x.new_zeros(...), \
                     x.double()), or set score.device=cpu",
                ),
                false => failed,
            }
        })?;
        self.column(&output, n)
    }

    /// The module's output as a column; refuses another shape or dtype than declared.
    fn column(&self, output: &Tensor, rows: i64) -> Result<ArrayRef> {
        let Type { element, shape } = self.declaration.returns;
        let (kind, size) = (output.f_kind()?, output.size());
        let fits = match (shape, size.as_slice()) {
            (Shape::Scalar, [n] | [n, 1]) | (Shape::List, [n, _]) => *n == rows,
            (Shape::Vector(width), [n, k]) => *n == rows && *k == width as i64,
            _ => false,
        };
        if !fits || kind != element.kind() {
            let wanted = match shape {
                Shape::Scalar => format!("[{rows}]"),
                Shape::List => format!("[{rows}, any]"),
                Shape::Vector(width) => format!("[{rows}, {width}]"),
            };
            return Err(self
                .refuse(format!(
                    "RETURNS {} expects a tensor {:?} {wanted} for {rows} rows, the module gave {kind:?} {size:?}",
                    self.declaration.returns,
                    element.kind()
                ))
                .hint("declare what the module returns, or convert its output within the module"));
        }
        let flat = output.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?;
        let values = element.array(&flat)?;
        Ok(match shape {
            Shape::Scalar => values,
            Shape::List | Shape::Vector(_) => {
                let offsets = OffsetBuffer::from_lengths(vec![size[1] as usize; rows as usize]);
                Arc::new(ListArray::new(self.declaration.returns.item(), offsets, values, None))
            }
        })
    }

    /// Calls the module with a tiny batch and with each of its rows alone: shapes and types must be those declared, and a
    /// row's result must not depend on its neighbours, since batches are cut anew on every run.
    fn probe(&self) -> Result<()> {
        let arguments: Vec<ArrayRef> =
            self.declaration.arguments.iter().map(|(_, t)| probe_values(*t)).collect::<Result<_>>()?;
        let all = self.call(&arguments, PROBE_ROWS)?;
        for row in 0..PROBE_ROWS {
            let alone: Vec<ArrayRef> = arguments.iter().map(|a| a.slice(row, 1)).collect();
            if !equal(&self.call(&alone, 1)?, &all.slice(row, 1))? {
                return Err(self
                    .refuse("a row alone has another result than in a batch")
                    .hint("a module must treat each row on its own: no statistics over the batch, no random numbers"));
            }
        }
        Ok(())
    }
}

/// Small numbers, different in each row, that are valid as ids too.
fn probe_values(declared: Type) -> Result<ArrayRef> {
    let length = match declared.shape {
        Shape::Scalar => 1,
        Shape::List => PROBE_LENGTH,
        Shape::Vector(n) => n,
    };
    let whole = matches!(declared.element, Element::Int | Element::Bigint | Element::Boolean);
    let value = |i: usize| if whole { (i % 2) as f64 } else { ((i % 7) as f64 - 2.0) / 4.0 };
    let values: Float64Array = (0..PROBE_ROWS * length).map(|i| Some(value(i))).collect();
    let values = cast(&values, &declared.element.data_type())?;
    Ok(match declared.shape {
        Shape::Scalar => values,
        _ => {
            let offsets = OffsetBuffer::from_lengths([length; PROBE_ROWS]);
            Arc::new(ListArray::new(declared.item(), offsets, values, None))
        }
    })
}

/// Equality of one row's results, within what the order of sums may change.
fn equal(left: &ArrayRef, right: &ArrayRef) -> Result<bool> {
    let numbers = |array: &ArrayRef| -> Result<Vec<f64>> {
        let flat = match array.as_list_opt::<i32>() {
            Some(list) => list.value(0),
            None => Arc::clone(array),
        };
        Ok(cast(&flat, &DataType::Float64)?.as_primitive::<Float64Type>().values().to_vec())
    };
    let (left, right) = (numbers(left)?, numbers(right)?);
    let same = |(l, r): (&f64, &f64)| l == r || (l.is_nan() && r.is_nan()) || (l - r).abs() <= 1e-4 * l.abs().max(1.0);
    Ok(left.len() == right.len() && left.iter().zip(&right).all(same))
}

/// Loads where nothing can wait: functions are called from synchronous code. A thread of its own, because the calling one
/// may belong to a runtime.
fn fetch(uri: &str, config: &Config) -> Result<Arc<Module>> {
    let load = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| Failure::passing(format!("no runtime: {e}")))?.block_on(modules::load(uri, config))
    };
    let loaded = std::thread::scope(|threads| threads.spawn(load).join());
    loaded.unwrap_or_else(|_| Err(Failure::bug(format!("loading {uri} panicked"))))
}

impl ScalarUDFImpl for TorchFunction {
    fn name(&self) -> &str {
        &self.declaration.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.declaration.returns.data_type())
    }

    fn coerce_types(&self, given: &[DataType]) -> datafusion::common::Result<Vec<DataType>> {
        let Declaration { name, arguments, .. } = &self.declaration;
        if given.len() != arguments.len() {
            let (wanted, got) = (arguments.len(), given.len());
            return Err(Failure::usage(format!("function {name}: expected {wanted} arguments, got {got}")).into());
        }
        for ((argument, declared), given) in arguments.iter().zip(given) {
            if !declared.takes(given) {
                let text = format!("function {name}: argument {argument}: expected {declared}, got {given}");
                return Err(Failure::usage(text).hint("cast it in the query").into());
            }
        }
        Ok(arguments.iter().map(|(_, declared)| declared.data_type()).collect())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        let arrays = call.args.into_iter().map(|a| a.into_array(call.number_rows));
        let arguments = arrays.collect::<datafusion::common::Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(self.call(&arguments, call.number_rows)?))
    }
}

/// Makes functions of `CREATE FUNCTION` statements, in every session that the engine builds.
#[derive(Debug)]
pub struct TorchFunctions(pub Arc<Config>);

#[async_trait]
impl FunctionFactory for TorchFunctions {
    async fn create(
        &self,
        state: &SessionState,
        statement: CreateFunction,
    ) -> datafusion::common::Result<RegisterFunction> {
        let name = statement.name.to_lowercase();
        let made = self.make(state, statement).await.map_err(|f| f.at(format!("CREATE FUNCTION {name}")))?;
        Ok(RegisterFunction::Scalar(Arc::new(ScalarUDF::from(made))))
    }
}

impl TorchFunctions {
    async fn make(&self, state: &SessionState, statement: CreateFunction) -> Result<TorchFunction> {
        // SQL folds a name that is not quoted to lower case where it is called; so it is here.
        let name = statement.name.to_lowercase();
        free(state, &name, statement.or_replace)?;
        let (language, volatility) = (statement.params.language, statement.params.behavior);
        let language = language.map(|l| l.value).unwrap_or_default();
        if !language.eq_ignore_ascii_case("torch") {
            return Err(Failure::usage(format!("expected LANGUAGE TORCH, got {language:?}")));
        }
        let uri = match statement.params.function_body {
            Some(Expr::Literal(ScalarValue::Utf8(Some(uri)), _)) => uri,
            other => return Err(Failure::usage(format!("expected AS 'uri of a TorchScript module', got {other:?}"))),
        };
        let mut arguments = Vec::new();
        for (at, argument) in statement.args.unwrap_or_default().into_iter().enumerate() {
            let label = argument.name.map_or_else(|| (at + 1).to_string(), |name| name.value);
            if argument.default_expr.is_some() {
                return Err(Failure::usage(format!("argument {label}: default values are not supported")));
            }
            let declared = Type::of(&argument.data_type);
            let declared = declared.ok_or_else(|| unsupported(&format!("argument {label}"), &argument.data_type))?;
            arguments.push((label, declared));
        }
        if arguments.is_empty() {
            return Err(Failure::usage("expected at least one argument: its rows are the rows of the result"));
        }
        let returns = statement.return_type.ok_or_else(|| Failure::usage("expected RETURNS and a type"))?;
        let returns = Type::of(&returns).ok_or_else(|| unsupported("RETURNS", &returns))?;
        let module = modules::load(&uri, &self.0).await?;
        let declaration = Declaration { name, arguments, returns, uri, hash: module.hash.clone() };
        let volatility = volatility.unwrap_or(Volatility::Immutable);
        let function = TorchFunction::new(declaration, volatility, Arc::clone(&self.0));
        function.module.get_or_init(|| module);
        function.probe()?;
        Ok(function)
    }
}

fn unsupported(what: &str, got: &DataType) -> Failure {
    Failure::usage(format!("{what}: expected FLOAT, DOUBLE, INT, BIGINT, BOOLEAN, or T[] or T[n] of one, got {got}"))
        .hint("text and times have no tensor: turn them into numbers in SQL")
}

/// Refuses the name of a function that is not ours, and one of ours without OR REPLACE.
fn free(state: &SessionState, name: &str, or_replace: bool) -> Result<()> {
    let ours = state.scalar_functions().get(name).map(|f| of(f).is_some());
    let built_in = ours == Some(false)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name);
    match (built_in, ours) {
        (true, _) => Err(Failure::usage("a built-in function has this name").hint("choose another name")),
        (false, Some(_)) if !or_replace => {
            Err(Failure::usage("there is such a function already").hint("CREATE OR REPLACE FUNCTION replaces it"))
        }
        _ => Ok(()),
    }
}

/// The user's function behind a registered one; `None` for all others.
pub fn of(function: &ScalarUDF) -> Option<&TorchFunction> {
    let function: &dyn Any = function.inner().as_ref();
    function.downcast_ref()
}

/// Prepares a statement for a session: DROP FUNCTION drops users' functions and no others.
pub fn checked(ctx: &SessionContext, plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Ddl(DdlStatement::DropFunction(mut statement)) = plan else { return Ok(plan) };
    statement.name = statement.name.to_lowercase();
    match (ctx.state().scalar_functions().get(&statement.name).map(|f| of(f).is_some()), statement.if_exists) {
        (Some(true), _) | (None, true) => Ok(LogicalPlan::Ddl(DdlStatement::DropFunction(statement))),
        (Some(false), _) => Err(Failure::usage(format!("DROP FUNCTION {}: it is built in", statement.name))),
        (None, false) => Err(Failure::usage(format!("DROP FUNCTION {}: no such function", statement.name))
            .hint("CREATE FUNCTION lives as long as its session")),
    }
}

/// What a session's users' functions are, modules' contents included: rows that they computed change when this does.
pub fn fingerprint(ctx: &SessionContext) -> String {
    let state = ctx.state();
    let ours = state.scalar_functions().values().filter_map(|f| of(f));
    let mut all: Vec<String> = ours.map(|f| format!("{:?}", f.declaration)).collect();
    all.sort();
    all.concat()
}
