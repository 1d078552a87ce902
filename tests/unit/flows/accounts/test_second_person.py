"""When another person must agree: the stage that asks, how many, and the sentence of each refusal."""

from collections.abc import Collection

import pytest

from support.values import plan, stage
from whimbrel.errors import Refused
from whimbrel.flows.accounts.second_person import check_finish, check_other_person, with_second_person
from whimbrel.plan.governance import Approval
from whimbrel.plan.plan import Plan
from whimbrel.policy.shadow import ShadowStage

FOUR = plan(stage("a", 5), stage("b", 10), stage("c", 50), stage("d", 100))


def asked(of: Plan) -> list[tuple[int, str] | None]:
    return [None if each.approval is None else (each.approval.count, each.approval.note) for each in of.stages]


# --- the stage that asks ---


def test_without_a_share_nobody_else_is_asked() -> None:
    assert with_second_person(FOUR, above_percent=None) is FOUR


def test_the_first_stage_past_the_share_asks_and_one_that_fills_it_exactly_does_not() -> None:
    note = "this model needs a second person above 10%"
    assert asked(with_second_person(FOUR, above_percent=10)) == [None, None, (1, note), None]
    assert asked(with_second_person(FOUR, above_percent=9.999)) == [
        None,
        (1, "this model needs a second person above 9.999%"),
        None,
        None,
    ]
    assert with_second_person(FOUR, above_percent=100) is FOUR


def test_what_others_of_the_model_have_counts_and_is_told() -> None:
    with_others = with_second_person(FOUR, above_percent=10, taken_percent=5.0)
    assert asked(with_others) == [
        None,
        (1, "this model needs a second person above 10%, and other rollouts and experiments have 5%"),
        None,
        None,
    ]
    third = with_second_person(FOUR, above_percent=10, taken_percent=100 / 3 - 25 - 10 / 3)  # 5, but for rounding
    assert asked(third)[0] is None


def test_shares_that_fill_the_bound_but_for_rounding_do_not_pass_it() -> None:
    assert asked(with_second_person(plan(stage("a", 0.1)), above_percent=0.3, taken_percent=0.1 + 0.1)) == [None]


def test_a_share_that_few_devices_raise_counts_as_raised() -> None:
    raised = with_second_person(FOUR, above_percent=10, reached_percents=[20.0])
    assert [each is not None for each in asked(raised)] == [True, False, False, False]
    less = with_second_person(FOUR, above_percent=10, reached_percents=[0.0, 0.0, 0.0, 0.0])
    assert [each is not None for each in asked(less)] == [False, False, True, False]
    second = with_second_person(FOUR, above_percent=10, reached_percents=[5.0, 12.0])
    assert [each is not None for each in asked(second)] == [False, True, False, False]


def test_a_part_of_the_buckets_is_so_much_less_of_the_devices() -> None:
    part = plan(*FOUR.stages, range_percent=(20, 40))
    assert [each is not None for each in asked(with_second_person(part, above_percent=10))] == [False] * 3 + [True]


def test_a_stage_in_the_shadow_serves_nobody() -> None:
    shadowed = plan(stage("shadow", 50, shadow=ShadowStage()), stage("canary", 5), stage("all", 100))
    assert [each is not None for each in asked(with_second_person(shadowed, above_percent=10))] == [False, False, True]


def test_how_many_agree_depends_on_whether_it_is_the_first_stage() -> None:
    counts = {"above_percent": 1.0, "first": 2, "later": 3}
    assert asked(with_second_person(FOUR, **counts))[0] == (2, "this model needs a second person above 1%")
    assert asked(with_second_person(FOUR, **counts | {"above_percent": 5.0}))[1] == (
        3,
        "this model needs a second person above 5%",
    )


def test_a_stage_that_asks_already_is_left_as_it_is() -> None:
    own = plan(stage("a", 5), stage("b", 100, approval=Approval(count=2, note="look")))
    assert with_second_person(own, above_percent=10, later=1) is own
    early = plan(stage("a", 5, approval=Approval()), stage("b", 100))
    assert [each is not None for each in asked(with_second_person(early, above_percent=10))] == [True, True]


def test_of_the_plan_nothing_else_changes() -> None:
    changed = with_second_person(FOUR, above_percent=10)
    assert [(each.name, each.target_percent) for each in changed.stages] == [
        (each.name, each.target_percent) for each in FOUR.stages
    ]


# --- one other person ---


def test_who_started_it_is_no_other_person() -> None:
    with pytest.raises(Refused) as refused:
        check_other_person("ada", "ada", what="stage b")
    assert str(refused.value) == "ada started it, and stage b needs the approval of another person"
    check_other_person("ada", "bob", what="stage b")
    check_other_person("", "", what="stage b")  # nobody is known to have started it


# --- finishing by hand ---

TWO = plan(stage("a", 5), stage("b", 50, approval=Approval()), stage("c", 100, approval=Approval(count=2)))
ONE = plan(stage("a", 5), stage("b", 50, approval=Approval()), stage("c", 100))


def finish(
    of: Plan,
    *,
    next_stage: int = 1,
    started_by: str = "ada",
    agreed: Collection[str] = (),
    actor: str = "bob",
    counts: bool = True,
    above_percent: float | None = None,
) -> str:
    """The sentence of the refusal; "" where it may be finished."""
    try:
        check_finish(
            of,
            next_stage=next_stage,
            started_by=started_by,
            agreed=agreed,
            actor=actor,
            counts=counts,
            above_percent=above_percent,
        )
    except Refused as error:
        return str(error)
    return ""


def test_a_stage_that_asks_is_skipped_by_another_person_alone() -> None:
    assert finish(ONE) == ""
    assert finish(ONE, actor="ada") == (
        "ada started it, and stage b, which finishing skips, needs the approval of another person"
    )
    assert finish(ONE, actor="robot", counts=False) == (
        "stage b, which finishing skips, needs the approval of a person who signed in as such, and robot did not; see: "
        "whimbrel login"
    )
    assert finish(ONE, next_stage=2, actor="ada") == ""  # it was entered: nobody skips it


def test_what_asks_for_two_people_is_skipped_by_nobody_wherever_it_stands() -> None:
    said = "stage c, which finishing skips, needs the approval of 2 people; let the rollout come to it"
    assert finish(TWO) == said
    assert finish(TWO, next_stage=2) == said
    assert finish(TWO, next_stage=3) == ""


def test_where_the_model_names_a_share_two_persons_stand_behind_what_is_finished() -> None:
    free = plan(stage("a", 5), stage("b", 100))
    assert finish(free, actor="ada") == ""
    assert finish(free, above_percent=10.0) == ""
    assert finish(free, actor="ada", above_percent=10.0) == (
        "ada started it, and what passes 10% of this model's devices needs the approval of another person"
    )
    assert finish(free, actor="ada", above_percent=10.0, agreed={"bob"}) == ""
    assert finish(free, actor="ada", above_percent=99.9) != ""
    assert finish(free, actor="ada", above_percent=100.0) == ""


def test_where_nobody_started_it_one_person_is_not_two() -> None:
    free = plan(stage("a", 5), stage("b", 100))
    assert finish(free, started_by="", above_percent=10.0) == (
        "bob would be the only person, and what passes 10% of this model's devices needs two; let another one finish it"
    )
    assert finish(free, started_by="", above_percent=10.0, agreed={"bob"}) != ""
    assert finish(free, started_by="", above_percent=10.0, agreed={"ada"}) == ""


def test_a_machine_is_no_second_of_two() -> None:
    free = plan(stage("a", 5), stage("b", 100))
    assert finish(free, actor="robot", counts=False, above_percent=10.0) == (
        "what passes 10% of this model's devices needs the approval of a person who signed in as such, and robot did "
        "not; see: whimbrel login"
    )
    assert finish(free, actor="robot", counts=False, above_percent=10.0, agreed={"bob"}) == ""
