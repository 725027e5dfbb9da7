//! Inputs of the demand network: flat columns of numbers, and the tensors computed from them. The night computes the columns
//! from histories, training stores them; the same few operations on whole columns turn both into tensors.

use tch::{Device, Kind, Tensor};

use super::calendar::{calendars, weekend_days};
use super::history::{ItemFacts, ItemHistory};
use super::input_sizes::{CLOSED_INPUTS, FUTURE_DAY_VALUES, INTENT_INPUTS, INTENTS_AT, PAST_DAY_VALUES};
use super::pattern::DemandPattern;
use super::shape::DemandShape;
use crate::failure::Result;

/// The columns of several items, computed from their histories; [`DemandRows`] describes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct DemandColumns {
    pub(crate) past: Vec<f32>,
    pub(crate) past_days: Vec<i32>,
    pub(crate) as_of_day: Vec<i32>,
    pub(crate) category: Vec<i32>,
    pub(crate) content: Vec<f32>,
    pub(crate) content_offsets: Vec<i32>,
    pub(crate) future: Vec<f32>,
    pub(crate) later_price_ratio: Vec<f32>,
    pub(crate) units: Vec<f64>,
    pub(crate) days_in_stock: Vec<f64>,
    pub(crate) pattern: Vec<u8>,
    pub(crate) lead_time_days: Vec<i32>,
}

impl DemandColumns {
    /// Computes the columns of items with `history_days` past and `horizon_days` future days.
    pub(crate) fn from_histories(
        items: &[ItemHistory],
        history_days: usize,
        horizon_days: usize,
        history_days_min: i64,
    ) -> Self {
        let mut columns = Self { content_offsets: vec![0], ..Self::default() };
        for item in items {
            let facts = item.facts(history_days_min);
            item.append_past_days(history_days, facts.scale(), &mut columns.past);
            columns.past_days.push(item.units.len().min(history_days) as i32);
            columns.as_of_day.push(item.as_of_day() as i32);
            columns.category.push(item.category as i32);
            columns.content.extend_from_slice(&item.content);
            columns.content_offsets.push(columns.content.len() as i32);
            item.append_future_days(horizon_days, &mut columns.future);
            columns.later_price_ratio.push(item.later_price_ratio());
            columns.units.push(facts.units);
            columns.days_in_stock.push(facts.days_in_stock);
            columns.pattern.push(facts.pattern as u8);
            columns.lead_time_days.push(facts.lead_time_days.try_into().unwrap_or(i32::MAX));
        }
        columns
    }

    pub(crate) fn rows(&self) -> DemandRows<'_> {
        DemandRows {
            past: &self.past,
            past_days: &self.past_days,
            as_of_day: &self.as_of_day,
            category: &self.category,
            content: &self.content,
            content_offsets: &self.content_offsets,
            future: &self.future,
            later_price_ratio: &self.later_price_ratio,
            units: &self.units,
            days_in_stock: &self.days_in_stock,
            pattern: &self.pattern,
            lead_time_days: &self.lead_time_days,
        }
    }
}

/// Borrowed columns of several items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DemandRows<'a> {
    /// Row-major [items, history_days, PAST_DAY_VALUES], the last day last; zeros before an item's first day.
    pub(crate) past: &'a [f32],
    /// Number of those days on which the item existed.
    pub(crate) past_days: &'a [i32],
    /// The first day that is forecast, in days since 1970-01-01.
    pub(crate) as_of_day: &'a [i32],
    /// Hash buckets of categories, 0 for none.
    pub(crate) category: &'a [i32],
    /// Content vectors of length one, one after the other.
    pub(crate) content: &'a [f32],
    /// Start of each item's content vector in `content`, and the end of the last; equal offsets mean no vector.
    pub(crate) content_offsets: &'a [i32],
    /// Row-major [items, horizon_days, FUTURE_DAY_VALUES].
    pub(crate) future: &'a [f32],
    /// The price ratio of the days after the horizon.
    pub(crate) later_price_ratio: &'a [f32],
    /// The fields of [`ItemFacts`]. Units of the days in stock.
    pub(crate) units: &'a [f64],
    pub(crate) days_in_stock: &'a [f64],
    /// Index in [`DemandPattern::ALL`].
    pub(crate) pattern: &'a [u8],
    pub(crate) lead_time_days: &'a [i32],
}

impl DemandRows<'_> {
    /// Returns the number of items.
    pub(crate) fn len(&self) -> usize {
        self.as_of_day.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn facts(&self, row: usize) -> ItemFacts {
        ItemFacts {
            pattern: DemandPattern::ALL.get(usize::from(self.pattern[row])).copied().unwrap_or(DemandPattern::New),
            units: self.units[row],
            days_in_stock: self.days_in_stock[row],
            lead_time_days: self.lead_time_days[row].into(),
        }
    }

    /// Returns [`ItemFacts::scale`] of each item, float32 [items, 1].
    fn scales(&self) -> Result<Tensor> {
        let units = Tensor::f_from_slice(self.units)?;
        let days = Tensor::f_from_slice(self.days_in_stock)?;
        Ok(((units + 1.0 / 30.0) / (days + 1.0)).to_kind(Kind::Float).f_unsqueeze(1)?)
    }

    /// Returns the network's inputs on the CPU. `lead_days` is the lead time of each item, at least 1.
    pub(crate) fn inputs(&self, lead_days: &[i64], shape: &DemandShape) -> Result<DemandInputs> {
        let items = self.len() as i64;
        let history = shape.history_days;
        let horizon = shape.horizon_days;
        let float_column = |values: &[f32]| -> Result<Tensor> { Ok(Tensor::f_from_slice(values)?.f_view([items, 1])?) };
        let int_column = |values: &[i32]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.to_kind(Kind::Int64).f_view([items, 1])?)
        };
        let day_numbers = |days: i64| Tensor::f_arange(days, (Kind::Int64, Device::Cpu));
        let as_of = int_column(self.as_of_day)?;
        let scale = self.scales()?;
        let log_scale = scale.log1p();

        let past_values = Tensor::f_from_slice(self.past)?.f_view([items, history, PAST_DAY_VALUES as i64])?;
        let existed =
            day_numbers(history)?.f_ge_tensor(&(int_column(self.past_days)?.f_neg()? + history))?.f_unsqueeze(2)?;
        let past_calendar = calendars(&(&as_of + (day_numbers(history)? - history)))? * existed;
        let (intents_at, intents) = (INTENTS_AT as i64, INTENT_INPUTS as i64);
        let closed = CLOSED_INPUTS as i64;
        let mut past = vec![past_values.f_narrow(2, 0, intents_at)?, past_calendar];
        if shape.intents {
            past.push(past_values.f_narrow(2, intents_at, intents)?);
        }
        if shape.closed_days {
            past.push(past_values.f_narrow(2, intents_at + intents, closed)?);
        }

        let future_values = Tensor::f_from_slice(self.future)?.f_view([items, horizon, FUTURE_DAY_VALUES as i64])?;
        let future_calendar = calendars(&(&as_of + day_numbers(horizon)?))?;
        let days_ahead = (day_numbers(horizon)?.to_kind(Kind::Float) / horizon as f64)
            .f_expand([items, horizon], false)?
            .f_unsqueeze(2)?;
        let scales = log_scale.f_expand([items, horizon], false)?.f_unsqueeze(2)?;
        let planned = FUTURE_DAY_VALUES as i64 - closed;
        let mut future = vec![future_calendar, future_values.f_narrow(2, 0, planned)?, days_ahead, scales];
        if shape.closed_days {
            future.push(future_values.f_narrow(2, planned, closed)?);
        }

        let leads = Tensor::f_from_slice(lead_days)?.f_view([items, 1])?.f_clamp_min(1)?;
        let lead_floats = leads.to_kind(Kind::Float);
        let last_known = leads.f_clamp_max(horizon)? - 1;
        let sum_within =
            |value: i64| future_values.f_select(2, value)?.f_cumsum(1, Kind::Float)?.f_gather(1, &last_known, false);
        let days_beyond = (&leads - horizon).f_clamp_min(0)?.to_kind(Kind::Float);
        let weekends = (weekend_days(&(&as_of + &leads))? - weekend_days(&as_of)?).to_kind(Kind::Float);
        let price_ratios = sum_within(1)? + &days_beyond * float_column(self.later_price_ratio)?;
        let mut lead = vec![
            lead_floats.log1p() / 3.0,
            sum_within(0)? / &lead_floats,
            weekends / &lead_floats,
            price_ratios / &lead_floats,
            log_scale,
        ];
        if shape.closed_days {
            // After the horizon the shop is closed as often as in its last week.
            let week = horizon.min(7);
            let last_week = future_values.f_select(2, planned)?.f_narrow(1, horizon - week, week)?;
            let usual = last_week.f_mean_dim(1, true, Kind::Float)?;
            lead.push((sum_within(planned)? + days_beyond * usual) / &lead_floats);
        }

        let category = Tensor::f_from_slice(self.category)?.to_kind(Kind::Int64);
        Ok(DemandInputs {
            past: Tensor::f_cat(&past, 2)?,
            category,
            content: if shape.content_dims > 0 { Some(self.contents(shape.content_dims)?) } else { None },
            scale,
            lead_days: lead_floats,
            future: Tensor::f_cat(&future, 2)?,
            lead: Tensor::f_cat(&lead, 1)?,
        })
    }

    /// Returns content vectors, float32 [items, dims], and whether each item has one, float32 [items, 1]. A vector of another
    /// dimension is ignored.
    fn contents(&self, dims: i64) -> Result<(Tensor, Tensor)> {
        let items = self.len() as i64;
        let offsets = Tensor::f_from_slice(self.content_offsets)?.to_kind(Kind::Int64);
        let from = offsets.f_narrow(0, 0, items)?;
        let to = offsets.f_narrow(0, 1, items)?;
        let known = (to - &from).f_eq(dims)?;
        let rows = known.f_nonzero()?.f_squeeze_dim(1)?;
        let positions =
            from.f_index_select(0, &rows)?.f_unsqueeze(1)? + Tensor::f_arange(dims, (Kind::Int64, Device::Cpu))?;
        let found =
            Tensor::f_from_slice(self.content)?.f_index_select(0, &positions.f_view([-1])?)?.f_view([-1, dims])?;
        let vectors = Tensor::f_zeros([items, dims], (Kind::Float, Device::Cpu))?.f_index_copy(0, &rows, &found)?;
        Ok((vectors, known.to_kind(Kind::Float).f_unsqueeze(1)?))
    }
}

/// Inputs of one forward pass.
#[derive(Debug)]
pub(crate) struct DemandInputs {
    /// float32 [items, history_days, inputs of a past day]; the shape has the number of inputs, here and below.
    pub(crate) past: Tensor,
    /// int64 [items].
    pub(crate) category: Tensor,
    /// float32 [items, content_dims] and [items, 1]: vectors, and whether each item has one.
    pub(crate) content: Option<(Tensor, Tensor)>,
    /// float32 [items, 1]: the items' scales in units per day.
    pub(crate) scale: Tensor,
    /// float32 [items, 1].
    pub(crate) lead_days: Tensor,
    /// float32 [items, horizon_days, inputs of a future day].
    pub(crate) future: Tensor,
    /// float32 [items, inputs of a lead time].
    pub(crate) lead: Tensor,
}

impl DemandInputs {
    /// Copies the inputs to `device`.
    pub(crate) fn to(&self, device: Device) -> Result<Self> {
        let copy = |tensor: &Tensor| tensor.f_to_device(device);
        let content = match &self.content {
            Some((vectors, known)) => Some((copy(vectors)?, copy(known)?)),
            None => None,
        };
        Ok(Self {
            past: copy(&self.past)?,
            category: copy(&self.category)?,
            content,
            scale: copy(&self.scale)?,
            lead_days: copy(&self.lead_days)?,
            future: copy(&self.future)?,
            lead: copy(&self.lead)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use crate::model::demand::history::tests::item;
    use crate::model::demand::input_sizes::{CALENDAR_INPUTS, FUTURE_DAY_INPUTS};

    const FIRST_OF_MARCH: i64 = 20_513;
    /// Inputs of a network that reads intents and closed days.
    const PAST_DAY: usize = INTENTS_AT + CALENDAR_INPUTS + INTENT_INPUTS + CLOSED_INPUTS;
    const FUTURE_DAY: usize = FUTURE_DAY_INPUTS + CLOSED_INPUTS;

    /// Returns the inputs of one item as numbers: past days, future days, lead time.
    fn inputs(item: &ItemHistory, lead_days: i64, shape: &DemandShape) -> [Vec<f32>; 3] {
        let history = shape.history_days as usize;
        let horizon = shape.horizon_days as usize;
        let columns =
            DemandColumns::from_histories(std::slice::from_ref(item), history, horizon, shape.history_days_min);
        let inputs = columns.rows().inputs(&[lead_days], shape).unwrap();
        [&inputs.past, &inputs.future, &inputs.lead].map(|t| Vec::try_from(&t.contiguous().view([-1])).unwrap())
    }

    fn shape(history_days: i64, horizon_days: i64) -> DemandShape {
        DemandShape { history_days, horizon_days, ..DemandShape::tiny(DemandNetworkName::Gru) }
    }

    #[test]
    fn future_days_have_their_calendar() {
        let [_, future, _] = inputs(&item(&[1.0; 5]), 7, &shape(5, 7));
        assert_eq!(future[..7], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(future[6 * FUTURE_DAY..][..7], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn past_days_come_last_after_zeros_for_missing_days() {
        let mut item = item(&[2.0, 0.0, 1.0]);
        item.intent_units = vec![f64::NAN, 0.0, 2.0 * item.facts(0).scale()];
        let [past, _, _] = inputs(&item, 7, &shape(5, 2));
        let day = |at: usize| &past[at * PAST_DAY..][..PAST_DAY];
        assert!(day(0).iter().chain(day(1)).all(|&v| v == 0.0));
        assert_eq!((day(2)[0], day(3)[0], day(4)[0]), (2f64.ln_1p() as f32, 0.0, 1f64.ln_1p() as f32));
        // The last day is a Sunday.
        let weekday = |at: usize| day(at)[INTENTS_AT..][..7].iter().position(|&v| v == 1.0);
        assert_eq!([2, 3, 4].map(weekday), [Some(4), Some(5), Some(6)]);
        let intents = |at: usize| day(at)[INTENTS_AT + CALENDAR_INPUTS..][..INTENT_INPUTS].to_vec();
        assert_eq!([2, 3, 4].map(intents), [[0.0, 0.0], [0.0, 1.0], [0.5, 1.0]]);
        let [newest, _, _] = inputs(&item, 7, &shape(2, 2));
        assert_eq!(newest, past[3 * PAST_DAY..], "the newest days of a longer history");
    }

    #[test]
    fn promotions_are_known_and_later_days_have_the_last_price() {
        let mut item = item(&[1.0; 5]);
        item.promoted_future = vec![false, true, true];
        item.price_future = vec![f64::NAN, 0.75, f64::NAN];
        let [_, future, lead] = inputs(&item, 4, &shape(5, 4));
        let day = |step: usize| [0, 1].map(|value| future[step * FUTURE_DAY + CALENDAR_INPUTS + value]);
        assert_eq!([day(0), day(1), day(2), day(3)], [[0.0, 0.0], [1.0, -0.25], [1.0, 0.0], [0.0, 0.0]]);
        // Monday to Thursday: two of four days promoted, no weekend day.
        assert_eq!(lead[1..4], [0.5, 0.0, -0.0625]);
        // The last price is 1.5 and the mean price 1.1.
        item.price[4] = 1.5;
        let ratio = (1.5 / 1.1 - 1.0) as f32;
        let planned = (0.75 / 1.1 - 1.0) as f32;
        let [_, _, beyond] = inputs(&item, 9, &shape(5, 4));
        let wanted = [(9f32).ln_1p() / 3.0, 2.0 / 9.0, 2.0 / 9.0, (planned + 8.0 * ratio) / 9.0];
        for (got, wanted) in beyond.iter().zip(wanted) {
            assert!((got - wanted).abs() < 1e-6, "{beyond:?}");
        }
    }

    #[test]
    fn closed_days_are_inputs_of_networks_that_read_them() {
        let mut item = item(&[1.0; 5]);
        // The history is from Tuesday to Saturday before FIRST_OF_MARCH, plus that Sunday: the last day is closed, and so is the
        // third day ahead.
        item.closed_dates = vec![FIRST_OF_MARCH, FIRST_OF_MARCH + 3];
        let reads = shape(5, 4);
        let [past, future, lead] = inputs(&item, 4, &reads);
        let closed = |days: &[f32], of_day: usize| days.chunks(of_day).map(|day| day[of_day - 1]).collect::<Vec<_>>();
        assert_eq!(closed(&past, PAST_DAY), [0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(closed(&future, FUTURE_DAY), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(lead.last(), Some(&0.25));
        let [.., beyond] = inputs(&item, 8, &reads);
        assert_eq!(beyond.last(), Some(&0.25), "two of eight days");
        let blind = DemandShape { closed_days: false, ..reads };
        let [past_without, future_without, lead_without] = inputs(&item, 4, &blind);
        assert_eq!(past_without[..PAST_DAY - 1], past[..PAST_DAY - 1]);
        assert_eq!([past_without.len(), future_without.len()], [5 * (PAST_DAY - 1), 4 * (FUTURE_DAY - 1)]);
        assert_eq!(lead_without, lead[..lead.len() - 1]);
    }

    #[test]
    fn contents_match_their_items_and_wrong_dimensions_are_ignored() {
        let mut items = vec![item(&[1.0]), item(&[1.0]), item(&[1.0]), item(&[1.0])];
        items[1].content = vec![0.6, 0.8];
        items[2].content = vec![1.0; 5];
        items[3].content = vec![1.0, 0.0];
        let contents = |items: &[ItemHistory], dims: i64| {
            let (vectors, known) = DemandColumns::from_histories(items, 1, 1, 0).rows().contents(dims).unwrap();
            [vectors, known].map(|t| Vec::<f32>::try_from(&t.view([-1])).unwrap())
        };
        assert_eq!(contents(&items, 2), [vec![0.0, 0.0, 0.6, 0.8, 0.0, 0.0, 1.0, 0.0], vec![0.0, 1.0, 0.0, 1.0]]);
        assert_eq!(contents(&items[..1], 2), [vec![0.0; 2], vec![0.0]]);
        assert_eq!(contents(&items, 3), [vec![0.0; 12], vec![0.0; 4]]);
    }
}
