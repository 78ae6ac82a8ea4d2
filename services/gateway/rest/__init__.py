"""The REST door: the contracts' HTTP annotations as routes, JSON as the API names it, errors in the API's shapes."""
