import pytest

from support.roles import Role


@pytest.fixture
def make_role(postgresql):
    """A function of an encoding that makes a role with a database of its own."""
    made = []

    def make(encoding: str = "UTF8") -> Role:
        made.append(Role(postgresql, encoding))
        return made[-1]

    yield make
    for role in made:
        role.drop()


@pytest.fixture
def role(make_role) -> Role:
    """A role with a database in UTF8."""
    return make_role()
