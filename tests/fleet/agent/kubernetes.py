"""What a DaemonSet of ours may hold: a subset of apps/v1, kept by hand, that refuses other keys."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Key = Annotated[str, StringConstraints(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9][A-Za-z0-9._-]*$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi)?$")]
Share = Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]?|100)%$")] | int
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=0)]
Path = Annotated[str, StringConstraints(pattern=r"^/[^:]*$")]
Labels = dict[Key, str]


class Part(BaseModel):
    """Keys as Kubernetes writes them; no others, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Metadata(Part):
    name: Name | None = None
    labels: Labels = {}
    annotations: dict[Key, str] = {}


class Selector(Part):
    match_labels: Labels


class RollingUpdate(Part):
    max_unavailable: Share


class UpdateStrategy(Part):
    type: Literal["RollingUpdate", "OnDelete"]
    rolling_update: RollingUpdate | None = None


class Toleration(Part):
    key: Key | None = None
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"]


class SeccompProfile(Part):
    type: Literal["RuntimeDefault", "Localhost", "Unconfined"]


class PodSecurity(Part):
    seccomp_profile: SeccompProfile


class Capabilities(Part):
    drop: list[str]


class ContainerSecurity(Part):
    run_as_user: int
    privileged: bool
    allow_privilege_escalation: bool
    read_only_root_filesystem: bool
    capabilities: Capabilities


class FieldRef(Part):
    field_path: Literal["spec.nodeName", "metadata.name", "metadata.namespace"]


class ValueFrom(Part):
    field_ref: FieldRef


class Variable(Part):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
    value: str | None = None
    value_from: ValueFrom | None = None


class ContainerPort(Part):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,15}$")]
    container_port: Port
    protocol: Literal["TCP", "UDP"]


class HttpGet(Part):
    path: Path
    port: str | Port
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"


class Probe(Part):
    http_get: HttpGet
    initial_delay_seconds: Seconds = 0
    period_seconds: Seconds
    timeout_seconds: Seconds
    failure_threshold: Annotated[int, Field(ge=1)]


class Resources(Part):
    requests: dict[Literal["cpu", "memory"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity]


class VolumeMount(Part):
    name: Name
    mount_path: Path
    read_only: bool = False


class Container(Part):
    name: Name
    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    command: list[str]
    args: list[str]
    env: list[Variable]
    ports: list[ContainerPort]
    readiness_probe: Probe
    liveness_probe: Probe
    resources: Resources
    security_context: ContainerSecurity
    volume_mounts: list[VolumeMount]


class HostPath(Part):
    path: Path
    type: Literal["Directory", "DirectoryOrCreate"]


class Secret(Part):
    secret_name: Name
    default_mode: Annotated[int, Field(ge=0, le=0o777)]


class Volume(Part):
    name: Name
    host_path: HostPath | None = None
    secret: Secret | None = None


class PodSpec(Part):
    runtime_class_name: Name
    node_selector: Labels
    tolerations: list[Toleration]
    automount_service_account_token: bool
    enable_service_links: bool
    host_network: bool
    # Not HostPid: Kubernetes writes these two letters large.
    host_pid: Annotated[bool, Field(alias="hostPID")]
    termination_grace_period_seconds: Seconds
    security_context: PodSecurity
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume]

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> "PodSpec":
        volumes = {volume.name for volume in self.volumes}
        for container in self.containers:
            ports = {port.name for port in container.ports}
            for probe in (container.readiness_probe, container.liveness_probe):
                if isinstance(probe.http_get.port, str) and probe.http_get.port not in ports:
                    raise ValueError(f"no port {probe.http_get.port}")
            for mount in container.volume_mounts:
                if mount.name not in volumes:
                    raise ValueError(f"no volume {mount.name}")
            known = {variable.name for variable in container.env}
            for used in re.findall(r"\$\(([A-Z_]+)\)", " ".join(container.args)):
                if used not in known:
                    raise ValueError(f"no variable {used}")
        return self


class PodTemplate(Part):
    metadata: Metadata
    spec: PodSpec


class DaemonSetSpec(Part):
    selector: Selector
    update_strategy: UpdateStrategy
    template: PodTemplate

    @model_validator(mode="after")
    def _selector_finds_the_template(self) -> "DaemonSetSpec":
        wanted, has = self.selector.match_labels, self.template.metadata.labels
        if not wanted or not wanted.items() <= has.items():
            raise ValueError(f"the selector {wanted} does not find the template's {has}")
        return self


class DaemonSet(Part):
    api_version: Literal["apps/v1"]
    kind: Literal["DaemonSet"]
    metadata: Metadata
    spec: DaemonSetSpec


def daemon_set(document: Any) -> DaemonSet:
    """A DaemonSet from what YAML gave.

    Raises:
        ValidationError: a key that is not ours to use, a wrong value, a name that leads nowhere.
    """
    return DaemonSet.model_validate(document)
