"""What is done to a machine's network card on its host, under the names that were fixed. Not for: who may."""

from portal.drivers.types import CardWas, DeviceModel, NicSpec
from portal.operations.registry import StepContext, StepFailed
from vms.changes.devices.shared import DeviceStep


class AttachCard(DeviceStep):
    """Attach the card, to what runs too."""

    name, title = "attach", "Attach the card to the machine"

    def do(self, context: StepContext) -> None:
        self.call(context, "attach_nic", context.identifiers["uuid"], *_card(context))
        self.look(context)

    def undo(self, context: StepContext) -> None:
        self.call_if_there(context, "detach_nic", context.identifiers["mac"])
        self.look(context)


class DetachCard(DeviceStep):
    """Detach the card; a guest that runs must let it go."""

    name, title = "detach", "Detach the card from the machine"

    def do(self, context: StepContext) -> None:
        self.call_if_there(context, "detach_nic", context.identifiers["mac"])
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        try:
            # As it was: without that it would be of its model by default, and miss in the order of boot.
            was = CardWas(names.get("was"), names.get("ran"))
            self.call_if_there(context, "attach_nic", *_card(context), was)
        except StepFailed as failure:
            # It is there still, on what others put it on: an adopted one on a bridge by itself.
            if failure.code != "already_exists":
                raise
        if not names.get("linked", True):
            self.call_if_there(context, "set_link", names["mac"], False)
        self.look(context)


class SetLink(DeviceStep):
    """Plug the card's cable in, or out."""

    name, title = "link", "Set the card's link"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        self.call(context, "set_link", names["uuid"], names["mac"], names["up"])
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        self.call_if_there(context, "set_link", names["mac"], names["back"])
        self.look(context)


def _card(context: StepContext) -> tuple[NicSpec, DeviceModel]:
    names = context.identifiers
    return NicSpec(names["mac"], names["network"]), DeviceModel(names["devices"])
