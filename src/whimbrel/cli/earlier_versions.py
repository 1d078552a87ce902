"""What was published before, as far as a new version is compared with it.

Called by `whimbrel publish`.
"""

from whimbrel.cli.connect import Client, quoted
from whimbrel.errors import Refused
from whimbrel.flows.publishing.check_interface import interface_objection
from whimbrel.flows.publishing.publish import is_same
from whimbrel.model.documents import parse
from whimbrel.model.release import Line, Release, Variant
from whimbrel.server.admin.views.versions import ListedVersion, VersionDetail

_LOOKED_BACK = 20  # versions, for one that says what it takes and gives


class EarlierVersions:
    """The versions that were published before, as far as a new one is compared with them."""

    def __init__(self, client: Client, model: str, versions: list[ListedVersion]) -> None:
        self._client = client
        self._path = f"models/{quoted(model)}"
        self._versions = versions

    def same_as(
        self, release: Release, *, version: str | None, semantic_version: str | None, sealed: bool = False
    ) -> ListedVersion | None:
        """The publication that says the same: of the number that was asked for, or the newest where none was.

        `sealed`: the release is to be sealed.
        """
        if version is None and semantic_version is None:
            before = self._newest()
        else:
            before = next(
                (
                    each
                    for each in self._versions
                    if version in {None, each.version} and semantic_version in {None, each.semantic_version}
                ),
                None,
            )
        if before is None or before.build_hash != release.build_hash:
            return None
        return before if is_same(self._release(before), release, sealed=sealed) else None

    def check_taken_back(self, release: Release) -> None:
        """Raises `Refused` where these files were taken back under another number: nothing was repaired."""
        for before in reversed(self._versions):
            if before.build_hash == release.build_hash and before.quarantined:
                named = f"{before.version} ({before.semantic_version})"
                why = "; ".join(f"from {each.devices}: {each.because}" for each in before.quarantined)
                raise Refused(
                    f"these are the files of {named}, which was taken back {why}. Nothing was published. Publish a "
                    "repaired build, or offer that version again, with a reason: whimbrel rollout start PLAN "
                    f"--override WHY, or whimbrel version unquarantine {before.version} --model {release.model} "
                    "--because WHY"
                )

    def check_interface(self, release: Release) -> None:
        """Raises `Refused` where the inputs or outputs are other ones than before."""
        before, variants = self._newest_with_interface()
        if before and (change := interface_objection(variants, release.variants)):
            raise Refused(
                f"{change}; apps were written for those of {before.version} ({before.semantic_version}). Nothing was "
                "published; where it is meant, publish it with --interface-change"
            )

    def _newest(self) -> ListedVersion | None:
        """The newest that devices may run."""
        return next(iter(self._living()), None)

    def _newest_with_interface(self) -> tuple[ListedVersion | None, tuple[Variant, ...]]:
        """The newest of which inputs and outputs are known, and its variants: one without says nothing of an app's."""
        for version in self._living()[:_LOOKED_BACK]:
            variants = self._release(version).variants
            if any(variant.signature is not None for variant in variants):
                return version, variants
        return None, ()

    def _living(self) -> list[ListedVersion]:
        """Those that devices may run, neither retired nor revoked; the newest first."""
        if not self._versions:
            return []
        line = self._client.get(f"{self._path}/line", as_=Line)
        living = [each for each in self._versions if not each.retired and line.allows(each.serial)]
        return sorted(living, key=lambda each: each.serial, reverse=True)

    def _release(self, version: ListedVersion) -> Release:
        detail = self._client.get(f"{self._path}/versions/{quoted(version.version)}", as_=VersionDetail)
        return parse(Release, bytes(detail.release), what=f"the release of {version.version}")
