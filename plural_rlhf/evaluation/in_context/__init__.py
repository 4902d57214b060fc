"""In-context steerability: does a model predict a person better after it has seen what that person answered?"""
