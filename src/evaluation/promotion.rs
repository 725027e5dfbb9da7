//! Judges whether a model should become champion: by the newest outcomes that neither model has learnt from.

use serde::Serialize;
use std::collections::BTreeMap;

use super::curves::Fans;
use super::demand_figures::DemandSums;
use super::figures::Figure;
use super::judged::{Task, labels_end, require_horizons};
use super::known_outcomes::KnownOutcomes;
use super::scored_users::ScoredUsers;
use super::{item_forecasts, scored_users};
use crate::config::{Config, PromotionConfig};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::model::bundle::BundleCard;
use crate::model::targets::{BINARY, CHURN, TARGETS};
use crate::workspace::Workspace;

/// The figure of the demand.
const PINBALL: &str = "pinball";

/// Condition on a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// It has to be better, beyond the interval.
    Better,
    /// It must not be worse, beyond the interval.
    Guard,
}

/// The result for one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Better,
    NotBetter,
    NotWorse,
    Worse,
    /// There are no outcomes yet, or all are alike.
    NotJudged,
}

/// One figure of both models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Compared {
    pub(crate) figure: String,
    pub(crate) role: Role,
    /// Value of the model that may become champion; `None` where it is not judged.
    pub(crate) challenger: Option<f64>,
    /// Value of the champion, or of a baseline where there is none.
    pub(crate) champion: Option<f64>,
    /// 95 % interval of the challenger's figure minus the champion's, paired.
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) verdict: Verdict,
}

/// Figures of both models before they are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) challenger: f64,
    pub(crate) champion: f64,
    /// `None` where there are too few outcomes for one.
    pub(crate) interval: Option<(f64, f64)>,
}

/// The figures of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    /// `None` where there was no champion.
    pub(crate) run_date: Option<RunDate>,
    pub(crate) compared: Vec<Compared>,
}

impl Comparison {
    /// Returns whether the model should become champion.
    pub(crate) fn is_better(&self) -> bool {
        let ours = |role: Role| self.compared.iter().filter(move |compared| compared.role == role);
        let better = ours(Role::Better).all(|compared| compared.verdict == Verdict::Better);
        better && ours(Role::Better).next().is_some() && ours(Role::Guard).all(|c| c.verdict != Verdict::Worse)
    }

    /// The reasons against it.
    pub(crate) fn objections(&self) -> Vec<String> {
        if !self.compared.iter().any(|compared| compared.role == Role::Better) {
            return vec!["its card has no figure of purchases or demand".into()];
        }
        let against = |compared: &&Compared| match compared.role {
            Role::Better => compared.verdict != Verdict::Better,
            Role::Guard => compared.verdict == Verdict::Worse,
        };
        let text = |compared: &Compared| match compared.verdict {
            Verdict::Worse => format!("{} is worse", compared.figure),
            Verdict::NotJudged => format!("{} cannot be judged", compared.figure),
            _ if self.run_date.is_some() => format!("{} is not better beyond the interval", compared.figure),
            _ => format!("{} is not better than its baseline", compared.figure),
        };
        self.compared.iter().filter(against).map(text).collect()
    }
}

/// Judges one figure. A figure that is no number is worse than any.
pub(crate) fn judge(figure: &str, role: Role, higher_is_better: bool, measured: Option<Measured>) -> Compared {
    // As gains: the sign of a loss is reversed.
    let gains = |(low, high): (f64, f64)| if higher_is_better { (low, high) } else { (-high, -low) };
    let verdict = match (role, measured) {
        (_, None) => Verdict::NotJudged,
        (Role::Better, Some(Measured { challenger, .. })) if !challenger.is_finite() => Verdict::NotBetter,
        (Role::Guard, Some(Measured { challenger, .. })) if !challenger.is_finite() => Verdict::Worse,
        (Role::Better, Some(measured)) => match measured.interval.map(gains) {
            Some((low, _)) if low > 0.0 => Verdict::Better,
            _ => Verdict::NotBetter,
        },
        (Role::Guard, Some(measured)) => match measured.interval.map(gains) {
            Some((_, high)) if high < 0.0 => Verdict::Worse,
            Some(_) => Verdict::NotWorse,
            None => Verdict::NotJudged,
        },
    };
    Compared {
        figure: figure.into(),
        role,
        challenger: measured.map(|measured| measured.challenger),
        champion: measured.map(|measured| measured.champion),
        interval: measured.and_then(|measured| measured.interval),
        verdict,
    }
}

/// Figure that a name in `promotion.better` or `promotion.guard` stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Named {
    OfTarget(Figure, usize),
    Pinball,
}

impl Named {
    fn parse(name: &str) -> Result<Self> {
        if name == PINBALL {
            return Ok(Self::Pinball);
        }
        let of_figure = Figure::ALL.into_iter().find_map(|figure| {
            let target = name.strip_prefix(figure.name())?.strip_prefix('_')?;
            let target = TARGETS[..BINARY].iter().position(|known| known.name == target)?;
            Some(Self::OfTarget(figure, target))
        });
        of_figure.ok_or_else(|| {
            let figures = Figure::ALL.map(Figure::name).join(", ");
            let targets: Vec<&str> = TARGETS[..BINARY].iter().map(|target| target.name).collect();
            Failure::usage(format!("promotion: expected pinball, or a figure and a target, got {name}"))
                .hint(format!("figures: {figures}; targets: {}; for instance log_loss_purchase", targets.join(", ")))
        })
    }

    fn higher_is_better(self) -> bool {
        match self {
            Self::OfTarget(figure, _) => figure.higher_is_better(),
            Self::Pinball => false,
        }
    }

    /// Returns the days after which an outcome is complete.
    fn horizon_days(self, config: &Config) -> i64 {
        match self {
            Self::OfTarget(_, target) if target == CHURN as usize => config.intents.churn_days.into(),
            Self::OfTarget(..) => config.intents.horizon_days.into(),
            Self::Pinball => config.demand.horizon_days.into(),
        }
    }
}

/// The configured figures with their roles.
fn wanted(config: &PromotionConfig) -> Result<Vec<(String, Role, Named)>> {
    let better = std::iter::once((&config.better, Role::Better));
    let all = better.chain(config.guard.iter().map(|name| (name, Role::Guard)));
    all.map(|(name, role)| Ok((name.clone(), role, Named::parse(name)?))).collect()
}

/// The outcomes by which models are judged, and the figures to compare.
pub(crate) struct Judge<'a> {
    workspace: &'a Workspace,
    known: KnownOutcomes,
    figures: Vec<(String, Role, Named)>,
}

impl<'a> Judge<'a> {
    pub(crate) async fn new(workspace: &'a Workspace) -> Result<Self> {
        let figures = wanted(&workspace.config.promotion)?;
        Ok(Self { workspace, known: KnownOutcomes::find(workspace).await?, figures })
    }

    /// Returns the days after which outcomes of the figure that has to be better are complete.
    fn horizon_days(&self) -> i64 {
        self.figures[0].2.horizon_days(&self.workspace.config)
    }

    /// Returns the newest date whose outcomes are complete.
    fn date(&self) -> RunDate {
        self.known.end.plus_days(-self.horizon_days())
    }

    /// Returns whether a model has learnt nothing of these outcomes.
    pub(crate) fn can_judge(&self, card: &BundleCard) -> Result<bool> {
        Ok(labels_end(card)? <= self.date())
    }

    /// Fails with the date from which on there are outcomes that a model has learnt nothing of.
    pub(crate) fn require_outcomes(&self, card: &BundleCard) -> Result<()> {
        if self.can_judge(card)? {
            return Ok(());
        }
        Err(Failure::check(format!(
            "model {} is not judged: the first outcomes that it has not learnt from are complete on {}, but the lake ends before {}",
            card.version,
            labels_end(card)?.plus_days(self.horizon_days()),
            self.known.end
        ))
        .hint("run it again then; --force promotes without judging"))
    }

    /// Compares two models as of the newest date whose outcomes are complete, which neither may have learnt from.
    pub(crate) async fn compare(&self, challenger: &BundleCard, champion: &BundleCard) -> Result<Comparison> {
        let (workspace, known) = (self.workspace, &self.known);
        let config = &workspace.config;
        let cards = [challenger.clone(), champion.clone()];
        if config.demand.enabled {
            // Nights with this configuration would refuse it.
            challenger.require_demand().map_err(|failure| {
                Failure::check(format!("not judged: {}", failure.message)).hint("--force promotes without judging")
            })?;
        }
        for card in &cards {
            self.require_outcomes(card)?;
            require_horizons(card, config, &|task| task == Task::Intents).map_err(|failure| {
                Failure::check(format!("not judged: {}", failure.message)).hint("--force promotes without judging")
            })?;
        }
        // Forecasts of other horizons are not judged.
        let with_demand = self.figures.iter().any(|(_, _, named)| *named == Named::Pinball)
            && cards.iter().all(|card| {
                card.demand.trained && require_horizons(card, config, &|task| task == Task::Demand).is_ok()
            });
        let date = self.date();
        let versions: Vec<String> = cards.iter().map(|card| card.version.clone()).collect();
        let users = scored_users::read(workspace, known, date, &versions, false, 0).await?;
        let mut demand: Vec<DemandSums> = Vec::new();
        if with_demand && date.plus_days(config.demand.horizon_days.into()) <= known.end {
            demand = cards.iter().map(|_| DemandSums::new(false)).collect();
            let mut drawn = Fans::default();
            item_forecasts::read(workspace, known, date, &cards, &mut [&mut demand], &mut drawn).await?;
        }
        let compared = self.figures.iter().map(|(name, role, named)| {
            let measured = match named {
                Named::OfTarget(figure, target) => of_users(&users, *figure, *target, config.train.seed),
                Named::Pinball => of_demand(&demand),
            };
            judge(name, *role, named.higher_is_better(), measured)
        });
        Ok(Comparison { run_date: Some(date), compared: compared.collect() })
    }
}

fn of_users(users: &ScoredUsers, figure: Figure, target: usize, seed: u64) -> Option<Measured> {
    let ([challenger, champion], interval) = users.compared(target, figure, seed)?;
    Some(Measured { challenger, champion, interval })
}

fn of_demand(sums: &[DemandSums]) -> Option<Measured> {
    let [challenger, champion] = sums else { return None };
    let difference = challenger.differences(champion).into_iter().find(|difference| difference.pattern == "all")?;
    Some(Measured {
        challenger: challenger.pinball()?,
        champion: champion.pinball()?,
        interval: Some(difference.interval),
    })
}

/// Compares a model with its baselines, where there is no champion: by the figures of its card, of users and dates that were held out.
pub(crate) fn compare_with_baselines(figures: &BTreeMap<String, f64>) -> Comparison {
    let baselines = [
        ("log_loss_purchase", "log_loss_test_purchase", "log_loss_test_purchase_base_rate", false),
        ("auc_purchase", "auc_test_purchase", "auc_test_purchase_recency_frequency", true),
        (PINBALL, "pinball_test", "pinball_test_seasonal_naive", false),
    ];
    let compared = baselines.into_iter().map(|(name, key, baseline, higher_is_better)| {
        let both = figures.get(key).zip(figures.get(baseline));
        let measured = both.map(|(&challenger, &champion)| {
            let difference = challenger - champion;
            Measured { challenger, champion, interval: Some((difference, difference)) }
        });
        // A figure that the card lacks, as of an intent without a single case, says nothing.
        let role = if measured.is_some() { Role::Better } else { Role::Guard };
        judge(name, role, higher_is_better, measured)
    });
    Comparison { run_date: None, compared: compared.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(role: Role, higher_is_better: bool, interval: (f64, f64)) -> Compared {
        let middle = f64::midpoint(interval.0, interval.1);
        let measured = Measured { challenger: 1.0 + middle, champion: 1.0, interval: Some(interval) };
        judge("figure", role, higher_is_better, Some(measured))
    }

    fn is_better(compared: &[Compared]) -> bool {
        Comparison { run_date: None, compared: compared.to_vec() }.is_better()
    }

    #[test]
    fn a_better_challenger_wins_and_an_equal_or_worse_one_does_not() {
        let loss = |interval| compared(Role::Better, false, interval);
        assert!(is_better(&[loss((-0.03, -0.01))]));
        assert!(!is_better(&[loss((-0.02, 0.01))]), "better within the interval only");
        assert!(!is_better(&[loss((0.0, 0.0))]), "equal");
        assert!(!is_better(&[loss((0.01, 0.03))]), "worse");
        assert_eq!(compared(Role::Better, true, (0.01, 0.03)).verdict, Verdict::Better);
        assert_eq!(compared(Role::Better, true, (-0.03, -0.01)).verdict, Verdict::NotBetter);
        assert!(!is_better(&[]), "nothing compared");
    }

    #[test]
    fn a_guard_blocks_only_beyond_its_interval() {
        let better = compared(Role::Better, false, (-0.03, -0.01));
        let guard = |higher_is_better, interval| compared(Role::Guard, higher_is_better, interval);
        assert!(is_better(&[better.clone(), guard(true, (-0.05, 0.01))]));
        assert!(!is_better(&[better.clone(), guard(true, (-0.05, -0.01))]), "a lower AUC");
        assert!(!is_better(&[better.clone(), guard(false, (0.01, 0.05))]), "a higher loss");
        let unknown = judge("log_loss_churn", Role::Guard, false, None);
        assert_eq!(unknown.verdict, Verdict::NotJudged);
        assert!(is_better(&[better, unknown]), "a guard without outcomes does not block");
        let unknown = judge("log_loss_purchase", Role::Better, false, None);
        let comparison = Comparison { run_date: None, compared: vec![unknown] };
        assert!(!comparison.is_better());
        assert_eq!(comparison.objections(), ["log_loss_purchase cannot be judged"]);
    }

    #[test]
    fn figures_that_are_no_numbers_or_have_no_interval_promote_nothing() {
        let measured = |challenger: f64, interval| Some(Measured { challenger, champion: 1.0, interval });
        let verdict = |role, measured| judge("pinball", role, false, measured).verdict;
        assert_eq!(verdict(Role::Guard, measured(f64::NAN, Some((f64::NAN, f64::NAN)))), Verdict::Worse);
        assert_eq!(verdict(Role::Better, measured(f64::NAN, Some((f64::NAN, f64::NAN)))), Verdict::NotBetter);
        assert_eq!(verdict(Role::Better, measured(0.5, None)), Verdict::NotBetter);
        assert_eq!(verdict(Role::Guard, measured(0.5, None)), Verdict::NotJudged);
    }

    #[test]
    fn without_a_champion_the_baselines_have_to_be_beaten() {
        let card = |auc: f64| {
            let figures = [
                ("log_loss_test_purchase", 0.3),
                ("log_loss_test_purchase_base_rate", 0.4),
                ("auc_test_purchase", auc),
                ("auc_test_purchase_recency_frequency", 0.7),
            ];
            compare_with_baselines(&figures.map(|(name, value)| (name.to_string(), value)).into())
        };
        assert!(card(0.8).is_better(), "the demand has no figures");
        assert!(!card(0.7).is_better(), "not better than recency and frequency");
        assert_eq!(card(0.6).objections(), ["auc_purchase is not better than its baseline"]);
        let empty = compare_with_baselines(&BTreeMap::new());
        assert!(!empty.is_better());
        assert_eq!(empty.objections(), ["its card has no figure of purchases or demand"]);
    }

    #[test]
    fn names_are_a_figure_and_a_target() {
        assert_eq!(Named::parse("pinball").unwrap(), Named::Pinball);
        assert!(Named::parse("log_loss_churn").is_ok() && Named::parse("average_precision_cart").is_ok());
        for wrong in ["purchase", "auc", "auc_", "auc_purchse", "log_loss"] {
            let failure = Named::parse(wrong).unwrap_err();
            assert_eq!(failure.kind.exit_code(), 2);
            assert!(failure.hint.unwrap().contains("log_loss_purchase"), "{wrong}");
        }
        assert!(wanted(&PromotionConfig::default()).is_ok());
    }
}
