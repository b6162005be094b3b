//! The dependencies of a unit through which the state of another unit can stop it.

use serde::{Deserialize, Serialize};

/// What systemctl is asked about each unit in a relation to ours.
pub(super) const PROPERTIES: &str = "Id,ActiveState,Result,AllowIsolate,InactiveExitTimestampMonotonic,\
    ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic,InactiveEnterTimestampMonotonic";

/// How many units of each relation are looked at.
const MAX_UNITS: usize = 64;

/// Defines the relations, by the names of systemd's properties.
macro_rules! relations {
    ($($relation:ident)*) => {
        /// A relation, as systemd names the property.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Relation {
            $(
                #[doc = concat!("`", stringify!($relation), "=`")]
                $relation,
            )*
        }

        impl Relation {
            /// All relations.
            pub(super) const ALL: &[Relation] = &[$(Relation::$relation),*];

            /// The name of the property.
            pub(super) fn property(self) -> &'static str {
                match self { $(Relation::$relation => stringify!($relation)),* }
            }
        }
    };
}

relations! {
    BindsTo PartOf Requires Requisite StopPropagatedFrom Conflicts ConflictedBy
    BoundBy ConsistsOf RequiredBy RequisiteOf PropagatesStopTo WantedBy UpheldBy
}

impl Relation {
    /// Whether a start of the other unit stops ours.
    pub(super) fn is_conflict(self) -> bool {
        matches!(self, Self::Conflicts | Self::ConflictedBy)
    }

    /// Whether a stop of the other unit stops ours.
    fn stops_us(self) -> bool {
        use Relation::{BindsTo, PartOf, Requires, Requisite, StopPropagatedFrom};
        matches!(self, BindsTo | PartOf | Requires | Requisite | StopPropagatedFrom)
    }

    /// Whether a stop of our unit stops the other one.
    fn stops_other(self) -> bool {
        use Relation::{BoundBy, ConsistsOf, PropagatesStopTo, RequiredBy, RequisiteOf};
        matches!(self, BoundBy | ConsistsOf | PropagatesStopTo | RequiredBy | RequisiteOf)
    }

    /// Whether the other unit keeps ours from being stopped by `StopWhenUnneeded=`
    /// (`UNIT_ATOM_PINS_STOP_WHEN_UNNEEDED`).
    fn needs_us(self) -> bool {
        use Relation::{BoundBy, RequiredBy, RequisiteOf, UpheldBy, WantedBy};
        matches!(self, BoundBy | RequiredBy | RequisiteOf | UpheldBy | WantedBy)
    }
}

/// The units in a relation to ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relations(pub Vec<(Relation, Vec<String>)>);

impl Relations {
    fn of(&self, select: fn(Relation) -> bool) -> impl Iterator<Item = &str> {
        let selected = self.0.iter().filter(move |(relation, _)| select(*relation));
        selected.flat_map(|(_, units)| units.iter().take(MAX_UNITS).map(String::as_str))
    }

    /// The units whose state may be the reason for a stop of ours, each once.
    pub(super) fn units(&self) -> impl Iterator<Item = &str> {
        let mut all: Vec<_> =
            self.of(|it| it.stops_us() || it.is_conflict() || it.needs_us()).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }

    /// The units that need ours.
    pub(super) fn needed_by(&self) -> impl Iterator<Item = &str> {
        self.of(Relation::needs_us)
    }
}

/// The first relation by which `name` can stop our unit, and whether our unit stops it, too.
pub(super) fn relation_to(relations: &Relations, name: &str) -> Option<(Relation, bool)> {
    let has = |units: &[String]| units.iter().any(|unit| unit == name);
    let all = || relations.0.iter().filter(|(_, units)| has(units)).map(|(relation, _)| *relation);
    let relation = all().find(|it| it.stops_us() || it.is_conflict())?;
    Some((relation, all().any(Relation::stops_other)))
}
