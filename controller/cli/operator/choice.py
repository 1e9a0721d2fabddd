"""From what was typed to the machines and tenants it means."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controller import clock
from controller.cli.operator.connection import Connection
from controller.cli.output.emit import from_wire_ms, note, render_names
from controller.fleet.selector import (
    NO_FACTS,
    Candidate,
    Facts,
    asks_for_system,
    facts_in,
    names_in,
    select_machines,
)
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.ids import MachineId, TenantId
from protocol.v1.operator_pb2 import (
    FindMachinesRequest,
    ListMachinesRequest,
    ListTenantsRequest,
    Machine,
    Tenant,
)

NAMED_AT_ONCE = 500
"""Of more machines all are asked for, and chosen from here."""


def tenant_named(connection: Connection, name: str) -> Tenant:
    """A tenant by its name or id; without a name the only one there is."""
    tenants = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    if name:
        for tenant in tenants:
            if name in {tenant.name, tenant.tenant_id}:
                return tenant
        raise NotFoundError(f"there is no tenant {name!r}; `stead tenant ls` lists them")
    if len(tenants) == 1:
        return tenants[0]
    if not tenants:
        raise NotFoundError("there is no tenant yet; `stead tenant add NAME` makes one")
    raise InvalidError("there are several tenants: name one with --tenant")


def machines_meant(connection: Connection, selector: str, tenant: str) -> list[Machine]:
    """The machines that a selector means, at least one, and all of one tenant; in brief."""
    named, brief = names_in(selector) or (), not asks_for_system(selector)
    listed, names = known_machines(connection, tenant, named=named, brief=brief)
    candidates = [_candidate(m, names) for m in listed]
    facts = known_facts(connection, selector, tenant)
    found = select_machines(selector, candidates, now=clock.now(), facts=facts)
    say_unknown(facts, listed)
    if not found:
        raise NotFoundError(f"no active machine fits the selector {selector!r}")
    if len({c.tenant for c in found}) > 1:
        raise InvalidError("the selector means machines of several tenants: add --tenant")
    by_id = {machine.machine_id: machine for machine in listed}
    return [by_id[c.id] for c in found]


def known_facts(connection: Connection, selector: str, tenant: str) -> Facts:
    """What the machines' inventories say to the facts in a selector."""
    words = facts_in(selector)
    if not words:
        return NO_FACTS
    only = tenant_named(connection, tenant).tenant_id if tenant else ""
    request = FindMachinesRequest(tenant_id=only, facts=words)
    answers = connection.machines.FindMachines(request).answers
    if len(answers) != len(words):
        raise InvalidError("the controller answers another question about machines than was asked")
    return {
        word: {
            **dict.fromkeys(answer.unfitting_ids, False),
            **dict.fromkeys(answer.fitting_ids, True),
        }
        for word, answer in zip(words, answers, strict=True)
    }


def say_unknown(facts: Facts, machines: Sequence[Machine]) -> None:
    """Tell the person which machines a selector could not judge."""
    for fact, known in facts.items():
        unknown = [m.name for m in machines if m.state == "active" and m.machine_id not in known]
        if unknown:
            note(f"{fact} is not known of {render_names(unknown)}: left out")


def machine_meant(connection: Connection, name: str, tenant: str) -> Machine:
    """The one machine of this name or id, active or not."""
    listed, names = known_machines(connection, tenant, named=[name])
    # Whatever the controller lists: it does not choose who is meant.
    found = [m for m in listed if name in {m.machine_id, m.name, f"{names[m.tenant_id]}/{m.name}"}]
    if not found:
        raise NotFoundError(f"there is no machine {name!r}; `stead machine ls` lists them")
    if len(found) > 1:
        raise InvalidError(f"several tenants have a machine {name!r}: add --tenant")
    return found[0]


def known_machines(
    connection: Connection, tenant: str, *, named: Sequence[str] = (), brief: bool = False
) -> tuple[Sequence[Machine], dict[str, str]]:
    """The machines that the operator may see, and the names of their tenants by id.

    Of many machines `named` ones come sooner than all, and `brief` ones, which lack what
    inventories, backups and drills say.
    """
    only = tenant_named(connection, tenant).tenant_id if tenant else ""
    listed, names = _listed(connection, only, named, brief=brief), tenant_names(connection)
    if any(machine.tenant_id not in names for machine in listed):
        raise InvalidError("the controller lists a machine of a tenant that it does not list")
    return listed, names


def tenant_names(connection: Connection) -> dict[str, str]:
    """The names of the tenants by their ids."""
    tenants = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    return {tenant.tenant_id: tenant.name for tenant in tenants}


def machines_of(connection: Connection, ids: Collection[str]) -> list[Machine]:
    """The machines with these ids, as far as there are any, in brief."""
    listed = _listed(connection, "", ids, brief=True) if ids else ()
    return [machine for machine in listed if machine.machine_id in ids]


def _listed(
    connection: Connection, tenant: str, named: Collection[str], *, brief: bool
) -> Sequence[Machine]:
    request = ListMachinesRequest(tenant_id=tenant, brief=brief)
    if len(named) <= NAMED_AT_ONCE:
        request.named.extend(named)
    return connection.machines.ListMachines(request).machines


def active_among(connection: Connection, ids: Collection[str]) -> list[Machine]:
    """Those of these machines that are in use, at least one; says of which others there are.

    PRECONDITION when none is: an order to nobody is none.
    """
    found = machines_of(connection, ids)
    out = [machine.name for machine in found if machine.state != "active"]
    if len(out) == len(found):
        raise SteadError(
            "none of the machines is in use any more; see `stead machine ls`",
            code=Code.PRECONDITION,
        )
    if out:
        note(f"not in use any more, and left out: {render_names(out)}")
    return [machine for machine in found if machine.state == "active"]


def ids_of(machines: Sequence[Machine]) -> tuple[TenantId, tuple[MachineId, ...]]:
    """The tenant and the ids, as an order wants them."""
    return TenantId(machines[0].tenant_id), tuple(MachineId(m.machine_id) for m in machines)


def _candidate(machine: Machine, tenant_names: dict[str, str]) -> Candidate:
    return Candidate(
        id=machine.machine_id,
        tenant=machine.tenant_id,
        tenant_name=tenant_names.get(machine.tenant_id, ""),
        name=machine.name,
        tags=frozenset(machine.tags),
        system=machine.system,
        linked=machine.linked,
        last_seen_at=from_wire_ms(machine.last_seen_at_ms),
        active=machine.state == "active",
    )


def active_machines(connection: Connection, tenant: Tenant) -> list[Machine]:
    """The tenant's machines that are in use."""
    listed = _listed(connection, tenant.tenant_id, (), brief=True)
    return [machine for machine in listed if machine.state == "active"]
