//! A user's function: what it is declared as, and how a batch of rows is passed to its module.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use tch::{Device, Tensor};

use super::modules::{self, Module};
use super::value_types::{Shape, Type};
use crate::config::Config;
use crate::failure::{Failure, Result};

/// Everything about a function except the module's weights. Travels in plans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    /// Name (or position, from 1) and type.
    pub(crate) arguments: Vec<(String, Type)>,
    pub(crate) returns: Type,
    pub(crate) uri: String,
    /// Hash of the module's file.
    pub(crate) hash: String,
}

/// A function that SQL calls.
#[derive(Debug)]
pub struct TorchFunction {
    pub(crate) declaration: Declaration,
    signature: Signature,
    config: Arc<Config>,
    /// Empty until the first call if the function came in a plan: a scheduler handles plans that it never runs.
    pub(super) module: OnceLock<Arc<Module>>,
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
    /// A function of a plan, whose module is loaded by the first call.
    pub(crate) fn from_plan(declaration: Declaration, config: Arc<Config>) -> Self {
        Self::new(declaration, Volatility::Immutable, config)
    }

    pub(super) fn new(declaration: Declaration, volatility: Volatility, config: Arc<Config>) -> Self {
        Self { declaration, signature: Signature::user_defined(volatility), config, module: OnceLock::new() }
    }

    /// The module, which is loaded if necessary; refuses a file with another hash than the declaration's.
    pub fn module(&self) -> Result<&Arc<Module>> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let Declaration { uri, hash, .. } = &self.declaration;
        let module = match modules::find(uri, hash, &self.config)? {
            Some(module) => module,
            None => load_blocking(uri, &self.config)?,
        };
        if module.hash != *hash {
            return Err(Failure::model(format!(
                "{}: the plan expects a module of hash {hash}, {uri} now has {}",
                self.declaration.name, module.hash
            ))
            .hint("create the function again, and do not change a module's file while plans run"));
        }
        Ok(self.module.get_or_init(|| module))
    }

    pub(super) fn refuse(&self, what: impl fmt::Display) -> Failure {
        Failure::model(format!("function {} ({}): {what}", self.declaration.name, self.declaration.uri))
    }

    /// The results of `rows` rows of arguments, which have the declared types.
    pub(super) fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let mut groups: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
        for row in 0..rows {
            if let Some(lengths) = self.lengths(arguments, row)? {
                groups.entry(lengths).or_default().push(row as u32);
            }
        }
        let mut parts = Vec::new();
        // Place of each row's result in `parts`.
        let mut places = vec![None; rows];
        let mut done = 0u32;
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

    /// The lengths of a row's lists; `None` if anything in the row is null.
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

    /// One forward pass over some rows without nulls whose lists have equal lengths.
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
            match module.device {
                Device::Cpu => failed,
                _ => failed.hint(
                    "a module must create and cast its tensors on the device of its inputs (x.new_zeros(...), x.double()), \
                     not on the one it was traced on; or set score.device=cpu",
                ),
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
                    "RETURNS {} expects a tensor {:?} {wanted} for {rows} rows, the module returned {kind:?} {size:?}",
                    self.declaration.returns,
                    element.kind()
                ))
                .hint("declare what the module returns, or convert its output in the module"));
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
            if !declared.accepts(given) {
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

/// The user's function behind a registered one; `None` for all others.
pub fn as_torch_function(function: &ScalarUDF) -> Option<&TorchFunction> {
    let function: &dyn Any = function.inner().as_ref();
    function.downcast_ref()
}

/// Loads a module from synchronous code, on a new thread: the calling one may belong to a runtime.
fn load_blocking(uri: &str, config: &Config) -> Result<Arc<Module>> {
    let load = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map_err(|e| Failure::transient(format!("cannot start a runtime: {e}")))?
            .block_on(modules::load(uri, config))
    };
    let loaded = std::thread::scope(|threads| threads.spawn(load).join());
    loaded.unwrap_or_else(|_| Err(Failure::bug(format!("loading {uri} panicked"))))
}
