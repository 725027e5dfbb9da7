//! What the demand network takes of items: flat numbers, one stretch an item, and the tensors that are made of them. The night
//! makes the numbers of histories, training keeps them in columns; the tensors are made of both by the same few operations
//! on whole columns.

use chrono::Datelike;
use std::f64::consts::TAU;
use tch::{Device, Kind, Tensor};

use super::history::{AHEAD_NUMBERS, DAY_NUMBERS, INTENT_INPUTS, ItemFacts, ItemHistory};
use super::{DemandShape, Speed};
use crate::failure::Result;

/// Weekday as seven flags, and sine and cosine of the day of the month (pay days).
pub const CALENDAR: usize = 9;
/// Inputs of one past day: [`DAY_NUMBERS`] with the day's calendar before what intents said. Those come last, so that a
/// network without them reads a prefix.
pub const DAY_INPUTS: usize = DAY_NUMBERS + CALENDAR;
/// Inputs of one day to come, known beforehand: its calendar, promotion, price ratio, how far ahead, log scale.
pub const KNOWN_INPUTS: usize = CALENDAR + AHEAD_NUMBERS + 2;
/// Inputs of a lead time: log days, shares of promoted and of weekend days, mean price ratio, log scale.
pub const LEAD_INPUTS: usize = 5;

/// Numbers of items, made of their histories.
#[derive(Debug, Clone, Default)]
pub struct ItemNumbers {
    pub past: Vec<f32>,
    pub past_days: Vec<i32>,
    pub as_of_day: Vec<i32>,
    pub category: Vec<i32>,
    pub content: Vec<f32>,
    pub content_offsets: Vec<i32>,
    pub ahead: Vec<f32>,
    pub ratio_after: Vec<f32>,
    pub units: Vec<f64>,
    pub days_in_stock: Vec<f64>,
    pub speed: Vec<u8>,
    pub lead_time_days: Vec<i32>,
}

impl ItemNumbers {
    pub fn of(items: &[ItemHistory], history_days: usize, horizon_days: usize, history_days_min: i64) -> Self {
        let mut numbers = Self { content_offsets: vec![0], ..Self::default() };
        for item in items {
            let facts = item.facts(history_days_min);
            item.past(history_days, facts.scale(), &mut numbers.past);
            numbers.past_days.push(item.units.len().min(history_days) as i32);
            numbers.as_of_day.push(item.as_of_day() as i32);
            numbers.category.push(item.category as i32);
            numbers.content.extend_from_slice(&item.content);
            numbers.content_offsets.push(numbers.content.len() as i32);
            item.ahead(horizon_days, &mut numbers.ahead);
            numbers.ratio_after.push(item.ratio_after());
            numbers.units.push(facts.units);
            numbers.days_in_stock.push(facts.days_in_stock);
            numbers.speed.push(facts.speed as u8);
            numbers.lead_time_days.push(facts.lead_time_days.try_into().unwrap_or(i32::MAX));
        }
        numbers
    }

    pub fn rows(&self) -> ItemRows<'_> {
        ItemRows {
            past: &self.past,
            past_days: &self.past_days,
            as_of_day: &self.as_of_day,
            category: &self.category,
            content: &self.content,
            content_offsets: &self.content_offsets,
            ahead: &self.ahead,
            ratio_after: &self.ratio_after,
            units: &self.units,
            days_in_stock: &self.days_in_stock,
            speed: &self.speed,
            lead_time_days: &self.lead_time_days,
        }
    }
}

/// The same numbers, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub struct ItemRows<'a> {
    /// Row-major [items, history_days, DAY_NUMBERS], the last day last; zeros before an item's first day.
    pub past: &'a [f32],
    /// How many of those days an item was there.
    pub past_days: &'a [i32],
    /// The first day that is forecast, in days since 1970-01-01.
    pub as_of_day: &'a [i32],
    /// Buckets, 0 for none.
    pub category: &'a [i32],
    /// Content vectors of length one, each item's between two offsets; none of an item of which nothing is known.
    pub content: &'a [f32],
    pub content_offsets: &'a [i32],
    /// Row-major [items, horizon_days, AHEAD_NUMBERS].
    pub ahead: &'a [f32],
    /// The price ratio of the days after those.
    pub ratio_after: &'a [f32],
    /// As [`ItemFacts`] has them.
    pub units: &'a [f64],
    pub days_in_stock: &'a [f64],
    pub speed: &'a [u8],
    pub lead_time_days: &'a [i32],
}

impl ItemRows<'_> {
    pub fn len(&self) -> usize {
        self.as_of_day.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn facts(&self, row: usize) -> ItemFacts {
        ItemFacts {
            speed: Speed::ALL.get(usize::from(self.speed[row])).copied().unwrap_or(Speed::New),
            units: self.units[row],
            days_in_stock: self.days_in_stock[row],
            lead_time_days: self.lead_time_days[row].into(),
        }
    }

    /// The items' scales as [`ItemFacts::scale`] has them, float32 [items, 1].
    fn scales(&self) -> Result<Tensor> {
        let (units, days) = (Tensor::f_from_slice(self.units)?, Tensor::f_from_slice(self.days_in_stock)?);
        Ok(((units + 1.0 / 30.0) / (days + 1.0)).to_kind(Kind::Float).f_unsqueeze(1)?)
    }

    /// What the network takes, on the CPU. `lead_days`: of each item, at least 1.
    pub fn inputs(&self, lead_days: &[i64], shape: &DemandShape) -> Result<OutlookInputs> {
        let (b, n, h) = (self.len() as i64, shape.history_days, shape.horizon_days);
        let column = |values: &[f32]| -> Result<Tensor> { Ok(Tensor::f_from_slice(values)?.f_view([b, 1])?) };
        let whole = |values: &[i32]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.to_kind(Kind::Int64).f_view([b, 1])?)
        };
        let steps = |days: i64| Tensor::f_arange(days, (Kind::Int64, Device::Cpu));
        let as_of = whole(self.as_of_day)?;
        let scale = self.scales()?;
        let log_scale = scale.log1p();

        let numbers = Tensor::f_from_slice(self.past)?.f_view([b, n, DAY_NUMBERS as i64])?;
        let there = steps(n)?.f_ge_tensor(&(whole(self.past_days)?.f_neg()? + n))?.f_unsqueeze(2)?;
        let calendar = calendars(&(&as_of + (steps(n)? - n)))? * there;
        let intents = INTENT_INPUTS as i64;
        let seen = DAY_NUMBERS as i64 - intents;
        let past = [numbers.f_narrow(2, 0, seen)?, calendar, numbers.f_narrow(2, seen, intents)?];

        let ahead = Tensor::f_from_slice(self.ahead)?.f_view([b, h, AHEAD_NUMBERS as i64])?;
        let far = (steps(h)?.to_kind(Kind::Float) / h as f64).f_expand([b, h], false)?.f_unsqueeze(2)?;
        let scales = log_scale.f_expand([b, h], false)?.f_unsqueeze(2)?;
        let known = Tensor::f_cat(&[&calendars(&(&as_of + steps(h)?))?, &ahead, &far, &scales], 2)?;

        let leads = Tensor::f_from_slice(lead_days)?.f_view([b, 1])?.f_clamp_min(1)?;
        let days = leads.to_kind(Kind::Float);
        let last_known = leads.f_clamp_max(h)? - 1;
        let until = |of: i64| ahead.f_select(2, of)?.f_cumsum(1, Kind::Float)?.f_gather(1, &last_known, false);
        let beyond = (&leads - h).f_clamp_min(0)?.to_kind(Kind::Float);
        let weekends = (weekend_days(&(&as_of + &leads))? - weekend_days(&as_of)?).to_kind(Kind::Float);
        let ratios = until(1)? + beyond * column(self.ratio_after)?;
        let lead = [days.log1p() / 3.0, until(0)? / &days, weekends / &days, ratios / &days, log_scale];

        let category = Tensor::f_from_slice(self.category)?.to_kind(Kind::Int64);
        Ok(OutlookInputs {
            past: Tensor::f_cat(&past, 2)?.f_narrow(2, 0, shape.day_inputs())?,
            category,
            content: if shape.content_dims > 0 { Some(self.contents(shape.content_dims)?) } else { None },
            scale,
            lead_days: days,
            known,
            lead: Tensor::f_cat(&lead, 1)?,
        })
    }

    /// Content vectors, float32 [items, dims], and whether each has one, float32 [items, 1]; one of another length says nothing.
    fn contents(&self, dims: i64) -> Result<(Tensor, Tensor)> {
        let items = self.len() as i64;
        let offsets = Tensor::f_from_slice(self.content_offsets)?.to_kind(Kind::Int64);
        let (from, to) = (offsets.f_narrow(0, 0, items)?, offsets.f_narrow(0, 1, items)?);
        let known = (to - &from).f_eq(dims)?;
        let rows = known.f_nonzero()?.f_squeeze_dim(1)?;
        let places =
            from.f_index_select(0, &rows)?.f_unsqueeze(1)? + Tensor::f_arange(dims, (Kind::Int64, Device::Cpu))?;
        let found = Tensor::f_from_slice(self.content)?.f_index_select(0, &places.f_view([-1])?)?.f_view([-1, dims])?;
        let vectors = Tensor::f_zeros([items, dims], (Kind::Float, Device::Cpu))?.f_index_copy(0, &rows, &found)?;
        Ok((vectors, known.to_kind(Kind::Float).f_unsqueeze(1)?))
    }
}

/// Inputs of one pass of the network.
#[derive(Debug)]
pub struct OutlookInputs {
    /// float32 [items, history_days, day inputs].
    pub past: Tensor,
    /// int64 [items].
    pub category: Tensor,
    /// float32 [items, content_dims] and [items, 1]: vectors, and whether there is one.
    pub content: Option<(Tensor, Tensor)>,
    /// float32 [items, 1] each.
    pub scale: Tensor,
    pub lead_days: Tensor,
    /// float32 [items, horizon_days, KNOWN_INPUTS].
    pub known: Tensor,
    /// float32 [items, LEAD_INPUTS].
    pub lead: Tensor,
}

impl OutlookInputs {
    pub fn to(&self, device: Device) -> Result<Self> {
        let on = |tensor: &Tensor| tensor.f_to_device(device);
        let content = match &self.content {
            Some((vectors, known)) => Some((on(vectors)?, on(known)?)),
            None => None,
        };
        Ok(Self {
            past: on(&self.past)?,
            category: on(&self.category)?,
            content,
            scale: on(&self.scale)?,
            lead_days: on(&self.lead_days)?,
            known: on(&self.known)?,
            lead: on(&self.lead)?,
        })
    }
}

/// int64 [..] days since 1970-01-01 → float32 [.., CALENDAR].
fn calendars(days: &Tensor) -> Result<Tensor> {
    if days.numel() == 0 {
        return Ok(Tensor::f_zeros([days.size(), vec![CALENDAR as i64]].concat(), (Kind::Float, Device::Cpu))?);
    }
    let (first, last) = (days.f_min()?.f_int64_value(&[])?, days.f_max()?.f_int64_value(&[])?);
    let table: Vec<f32> = (first..=last).flat_map(calendar).collect();
    let table = Tensor::f_from_slice(&table)?.f_view([-1, CALENDAR as i64])?;
    let rows = table.f_index_select(0, &(days - first).f_reshape([-1])?)?;
    Ok(rows.f_view([days.size(), vec![CALENDAR as i64]].concat().as_slice())?)
}

/// Saturdays and Sundays before each day, int64, but for a constant: differences count those between two days.
fn weekend_days(days: &Tensor) -> Result<Tensor> {
    let of_week = weekday_of(days)?;
    let weeks = (days + 3 - &of_week).f_divide_scalar_mode(7, "floor")?;
    Ok(weeks * 2 + (of_week - 5).f_clamp_min(0)?)
}

/// Monday = 0; 1970-01-01 was a Thursday.
fn weekday_of(days: &Tensor) -> Result<Tensor> {
    Ok((days + 3).f_remainder(7)?)
}

fn calendar(day: i64) -> [f32; CALENDAR] {
    let mut inputs = [0.0; CALENDAR];
    inputs[(day + 3).rem_euclid(7) as usize] = 1.0;
    let (month_day, month_days) = place_in_month(day);
    let angle = TAU * month_day as f64 / month_days as f64;
    (inputs[7], inputs[8]) = (angle.sin() as f32, angle.cos() as f32);
    inputs
}

/// The day of the month from 0, and how many days the month has.
fn place_in_month(day: i64) -> (i64, i64) {
    let date = chrono::NaiveDate::from_num_days_from_ce_opt((day + 719_163) as i32).unwrap_or_default();
    (i64::from(date.day0()), i64::from(date.num_days_in_month()))
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::item;
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use chrono::{NaiveDate, Weekday};

    const FIRST_OF_MARCH: i64 = 20_513;

    /// Inputs of one item as numbers: past days, days to come, the lead time.
    fn inputs(item: &ItemHistory, lead_days: i64, shape: &DemandShape) -> [Vec<f32>; 3] {
        let (history, horizon) = (shape.history_days as usize, shape.horizon_days as usize);
        let numbers = ItemNumbers::of(std::slice::from_ref(item), history, horizon, shape.history_days_min);
        let inputs = numbers.rows().inputs(&[lead_days], shape).unwrap();
        [&inputs.past, &inputs.known, &inputs.lead].map(|t| Vec::try_from(&t.contiguous().view([-1])).unwrap())
    }

    fn shape(history_days: i64, horizon_days: i64) -> DemandShape {
        DemandShape { history_days, horizon_days, ..DemandShape::tiny(DemandNetworkName::Gru) }
    }

    #[test]
    fn the_calendar_of_known_days() {
        // 2026-03-01 was a Sunday.
        assert_eq!((calendar(FIRST_OF_MARCH)[6], place_in_month(FIRST_OF_MARCH)), (1.0, (0, 31)));
        assert_eq!((calendar(FIRST_OF_MARCH - 1)[5], place_in_month(FIRST_OF_MARCH - 1)), (1.0, (27, 28)));
        let [_, known, _] = inputs(&item(&[1.0; 5]), 7, &shape(5, 7));
        assert_eq!(known[..7], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(known[6 * KNOWN_INPUTS..][..7], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn weekends_of_any_span_are_counted_as_the_calendar_does() {
        let date = |day: i64| NaiveDate::from_num_days_from_ce_opt((day + 719_163) as i32).unwrap();
        let is_weekend = |day: &i64| matches!(date(*day).weekday(), Weekday::Sat | Weekday::Sun);
        for from in FIRST_OF_MARCH - 7..FIRST_OF_MARCH {
            for days in 0..30 {
                let [before, after] = [from, from + days].map(|day| weekend_days(&Tensor::from_slice(&[day])).unwrap());
                let counted = (from..from + days).filter(is_weekend).count() as i64;
                assert_eq!((after - before).int64_value(&[0]), counted, "{days} days from {}", date(from));
            }
        }
    }

    #[test]
    fn past_days_stand_at_the_end_and_days_before_an_item_are_zeros() {
        let mut item = item(&[2.0, 0.0, 1.0]);
        item.intent_units = vec![f64::NAN, 0.0, 2.0 * item.facts(0).scale()];
        let [past, _, _] = inputs(&item, 7, &shape(5, 2));
        let day = |at: usize| &past[at * DAY_INPUTS..][..DAY_INPUTS];
        assert!(day(0).iter().chain(day(1)).all(|&v| v == 0.0));
        assert_eq!((day(2)[0], day(3)[0], day(4)[0]), (2f64.ln_1p() as f32, 0.0, 1f64.ln_1p() as f32));
        // They ended on a Sunday.
        let weekday = |at: usize| day(at)[DAY_NUMBERS - INTENT_INPUTS..][..7].iter().position(|&v| v == 1.0);
        assert_eq!([2, 3, 4].map(weekday), [Some(4), Some(5), Some(6)]);
        let intents = |at: usize| day(at)[DAY_INPUTS - INTENT_INPUTS..].to_vec();
        assert_eq!([2, 3, 4].map(intents), [[0.0, 0.0], [0.0, 1.0], [0.5, 1.0]]);
        let [longer, _, _] = inputs(&item, 7, &shape(2, 2));
        assert_eq!(longer, past[3 * DAY_INPUTS..], "of a longer history the newest days");
    }

    #[test]
    fn planned_promotions_and_their_prices_are_known_beforehand_and_later_the_last_price_stands() {
        let mut item = item(&[1.0; 5]);
        item.promoted_future = vec![false, true, true];
        item.price_future = vec![f64::NAN, 0.75, f64::NAN];
        let [_, known, lead] = inputs(&item, 4, &shape(5, 4));
        let day = |step: usize| [known[step * KNOWN_INPUTS + CALENDAR], known[step * KNOWN_INPUTS + CALENDAR + 1]];
        assert_eq!([day(0), day(1), day(2), day(3)], [[0.0, 0.0], [1.0, -0.25], [1.0, 0.0], [0.0, 0.0]]);
        // Monday to Thursday: two of four days promoted, no weekend.
        assert_eq!(lead[1..4], [0.5, 0.0, -0.0625]);
        // The last price lies a fifth above the usual one, five sixths of it the days before.
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
    fn contents_stand_beside_their_items_and_those_of_another_length_are_none() {
        let mut items = vec![item(&[1.0]), item(&[1.0]), item(&[1.0]), item(&[1.0])];
        (items[1].content, items[2].content, items[3].content) = (vec![0.6, 0.8], vec![1.0; 5], vec![1.0, 0.0]);
        let contents = |items: &[ItemHistory], dims: i64| {
            let (vectors, known) = ItemNumbers::of(items, 1, 1, 0).rows().contents(dims).unwrap();
            [vectors, known].map(|t| Vec::<f32>::try_from(&t.view([-1])).unwrap())
        };
        assert_eq!(contents(&items, 2), [vec![0.0, 0.0, 0.6, 0.8, 0.0, 0.0, 1.0, 0.0], vec![0.0, 1.0, 0.0, 1.0]]);
        assert_eq!(contents(&items[..1], 2), [vec![0.0; 2], vec![0.0]]);
        assert_eq!(contents(&items, 3), [vec![0.0; 12], vec![0.0; 4]]);
    }
}
